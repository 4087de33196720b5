"""What the C library does with memory that a step frees and the next one takes again."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_pages() -> bool:
    """Ask glibc to keep freed memory instead of giving it back to the system; False where there is no glibc.

    By default the end of the heap goes back as soon as it is free, and the kernel clears its pages anew when they are
    touched again: a training step takes and frees the same gigabytes over and over. Blocks above 32 MiB, which are
    large weights' gradients, stay mapped one by one: in the heap they leave holes that nothing else fits. What is kept
    counts as this process's memory until it ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.malloc_trim(0)  # what building the model left over goes first
        return bool(libc.mallopt(_MMAP_THRESHOLD, 2**25) and libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1))
    except (OSError, AttributeError):  # another C library
        return False
