"""Latency tables: how a time is taken, on which device and runtime, and what is predicted from it."""
