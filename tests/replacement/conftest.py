"""A little space that was learned in a few steps."""

from support.replacing import learned_folder, lessons
from support.trainings import one_thread

__all__ = ["learned_folder", "lessons", "one_thread"]
