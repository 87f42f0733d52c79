"""Settings of the whole suite: property tests that repeat themselves, one thread a worker, floats as they should be."""

import ctypes
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported; the workers share the cores

from hypothesis import settings

settings.register_profile("suite", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("suite")


def pytest_runtest_setup() -> None:
    """The first session of onnxruntime lets its thread flush denormals to zero, and hypothesis draws no floats then."""
    if sys.platform == "linux":
        ctypes.CDLL(None).fesetenv(ctypes.c_void_p(-1))  # FE_DFL_ENV
