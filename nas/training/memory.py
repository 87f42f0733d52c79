"""Keep freed memory in the process, so that a training on a CPU does not ask the system for each tensor anew.

The C library of Linux gives large blocks back as soon as they are free. The system hands out the next one page by page,
each of them filled with zeros. For the feature maps of a batch that takes longer than what is computed on them.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

# Of glibc's malloc.h: the options of mallopt.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_NEVER, _AT_ONCE = 2**31 - 1, 2**26  # bytes; memory is asked for in pieces of the second


@cache
def keep_freed_memory() -> bool:
    """Let the C library keep what is freed, from now on; return whether it can, which is so with glibc."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    options = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _AT_ONCE))
    return all(mallopt(option, value) for option, value in options)
