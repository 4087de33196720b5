"""How the threads of one operation wait for each other; decided before torch is loaded.

GNU's OpenMP, which torch brings, lets a thread that waits spin for about a millisecond. On an idle
machine that saves waking it up. Beside other busy processes it takes the core that the thread needs
for which it waits. Measured by `benchmarks.speed.busy` on two cores, a pass of 0.13 s through a
small UNet: alone 0.128 s as OpenMP has it, 0.129 s with 10,000 turns, 0.165 s without spinning;
beside ten busy processes 3.5 s, 1.3 s and 0.31 s. What a wake-up costs does not grow with the
model.
"""

from __future__ import annotations

import os
import sys
import time

from zeroconv.machine import cores

# GNU's and LLVM's OpenMP read the first, Intel's and LLVM's the second (milliseconds)
_ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
_BRIEFLY = {"GOMP_SPINCOUNT": "10000"}  # GNU's default is 300,000
NAMES = (*_ASLEEP, *_BRIEFLY)


def set_waiting() -> None:
    """Have waiting threads sleep at once where the machine is busy now, and soon elsewhere.

    Nothing is changed where the user has set one of NAMES, or torch is loaded, which reads them
    once. Processes started by this one inherit what is set.
    """
    if "torch" in sys.modules or any(name in os.environ for name in NAMES):
        return
    busy = others_running() >= max(1, cores() // 4)
    os.environ.update(_ASLEEP if busy else _BRIEFLY)


def others_running() -> float:
    """How many other threads of the machine run or could run now; 0 where the system does not say.

    The least of three looks, since many threads run for a moment only.
    """
    looks = []
    for wait in (0.0, 0.002, 0.002):
        time.sleep(wait)
        looks.append(_running())
    return min(looks)


def _running() -> float:
    try:
        with open("/proc/stat", encoding="ascii") as file:
            entry = next(line for line in file if line.startswith("procs_running"))
        return float(entry.split()[1]) - 1  # this one
    except (OSError, ValueError, StopIteration, IndexError):
        pass
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):  # Windows
        return 0.0
