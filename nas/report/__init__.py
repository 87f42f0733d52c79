"""Draw the figures of a run and write its HTML page."""
