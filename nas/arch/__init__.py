"""Describe networks as specs, the search spaces that they come from, and their cost."""
