"""Train networks on images: sources, recipes, the training loop and its folder."""
