"""Fixtures of a small network, few images and a short recipe."""

from support.trainings import little_data, one_thread, recipe, tiny_spec

__all__ = ["little_data", "one_thread", "recipe", "tiny_spec"]
