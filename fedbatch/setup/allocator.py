"""Keep freed memory in the process instead of giving it back to the system after every layer.

A convolution's output is megabytes, which glibc maps afresh and unmaps each time; clearing those pages again and again
is a visible part of a convolutional network's round.
"""

import ctypes
import ctypes.util

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST_MAPPED_BYTES = 2**30


def keep_freed_memory() -> bool:
    """Tell glibc to reuse blocks below 1 GiB; False where the C library is another one and nothing was done."""
    library = ctypes.util.find_library("c")
    mallopt = getattr(ctypes.CDLL(library), "mallopt", None) if library else None
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGEST_MAPPED_BYTES) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
