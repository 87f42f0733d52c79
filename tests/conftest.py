"""Settings of the whole suite: property tests that repeat themselves, one thread a worker."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported; the workers share the cores

from hypothesis import settings

settings.register_profile("suite", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("suite")
