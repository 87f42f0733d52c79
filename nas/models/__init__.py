"""Build networks as torch modules."""
