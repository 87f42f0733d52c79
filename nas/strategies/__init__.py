"""Search strategies. Each is given the space, the prices and the limits as arguments; none loads torch."""
