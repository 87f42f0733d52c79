"""Runs: the record of a run, its folder, its log."""
