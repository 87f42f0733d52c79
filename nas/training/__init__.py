"""Training: data sources, recipes, the loop, and batch norm that is ready when it is needed."""
