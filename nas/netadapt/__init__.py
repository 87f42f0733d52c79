"""Trim a network step by step to a latency budget with NetAdapt, by an accuracy estimator or on images."""
