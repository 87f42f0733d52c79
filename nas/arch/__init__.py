"""Architectures: what a network is, the spaces that networks are searched in, what they cost."""
