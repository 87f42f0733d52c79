"""Measure a latency table on a device that this package cannot be installed on."""
