"""Time networks on a device, keep the times in a latency table, and predict latencies from it."""
