"""The C allocator of a worker process: memory that is freed stays with the process.

glibc gives large blocks back to the system at once and gets them again as fresh pages, each of which costs a page
fault and 4 KiB of zeros. A forward pass of GoogLeNet on 16 frames does that 56,000 times, a fifth of its time; the
frames of a decoder suffer in the same way. Results do not change, and a worker that reuses its memory holds some
tens of MB more.
"""

from __future__ import annotations

import ctypes
import sys

# <malloc.h> of glibc
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3

KEPT_BYTES = 2**30
GROWTH_BYTES = 2**26


def keep_freed_memory() -> bool:
    """Makes malloc keep up to `KEPT_BYTES` of freed memory, for the whole process and for good.

    Returns:
        Whether it did; False with another C library than glibc, where nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    settings = (_M_TRIM_THRESHOLD, KEPT_BYTES), (_M_MMAP_THRESHOLD, KEPT_BYTES), (_M_TOP_PAD, GROWTH_BYTES)
    answers = [mallopt(option, value) for option, value in settings]
    return all(answer == 1 for answer in answers)  # glibc answers 1 for what it accepts, musl 0
