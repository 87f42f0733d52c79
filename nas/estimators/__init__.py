"""Accuracy estimators: what a network would score, without training it in full."""
