"""Put several runs on one page, or the latency tables of two devices."""
