"""What this process may use of the machine, and has used, on Linux, macOS and Windows."""

from __future__ import annotations

import os
import sys


def cores() -> int:
    """Processor cores that this process may run on; all there are, where the system keeps no such list."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def peak_memory() -> int:
    """Bytes: the most main memory that this process has held."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil  # accelerate brings it

        return psutil.Process().memory_info().peak_wset
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # macOS counts bytes, Linux KiB
