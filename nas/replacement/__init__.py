"""Replacement blocks: learn from a trained network what every choice of every block is worth on the user's images."""
