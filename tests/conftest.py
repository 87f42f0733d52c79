"""Set up the whole suite: property tests give the same result every time, a worker has one thread."""

import ctypes
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported; the workers share the cores

from hypothesis import HealthCheck, settings

settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],  # it measures the machine
)
settings.load_profile("suite")


def pytest_runtest_setup() -> None:
    """Undo that the first session of onnxruntime flushes denormals to zero: hypothesis makes no floats then."""
    if sys.platform == "linux":
        ctypes.CDLL(None).fesetenv(ctypes.c_void_p(-1))  # FE_DFL_ENV
