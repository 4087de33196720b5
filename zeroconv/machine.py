"""What this process may use of the machine, and has used, on Linux, macOS and Windows."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def cores() -> int:
    """Processor cores that this process may run on; all there are, where the system keeps no such
    list.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def all_memory() -> int:
    """Bytes of main memory that this process may use: the machine's, or its container's if less."""
    import psutil  # accelerate brings it

    least = psutil.virtual_memory().total + psutil.swap_memory().total
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of cgroups 2 and 1
        try:
            least = min(least, int(Path("/sys/fs/cgroup", name).read_text()))
        except (OSError, ValueError):  # there is none, or it says "max"
            continue
    return least


def leave_ctrl_c() -> None:
    """In a process of a pool: Ctrl-C at the terminal is for the one that started it.

    That one gets the signal, waits for the work at hand and gives up the rest; without this, every
    process of the pool would print a traceback.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def peak_memory() -> int:
    """Bytes: the most main memory that this process has held."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil  # accelerate brings it

        return psutil.Process().memory_info().peak_wset
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # macOS counts bytes, Linux KiB
