"""Measure a latency table on a device where this package cannot be installed."""
