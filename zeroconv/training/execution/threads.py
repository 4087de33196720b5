"""How many threads compute: as many as are asked for, within what the machine's cores can use."""

from __future__ import annotations

import warnings

import torch

from zeroconv.machine import cores

# more threads than this a core wait for each other: a step takes minutes, and a thousand take all
# memory
TIMES = 4


def use_threads(asked: int | None) -> None:
    """Have torch compute with `asked` threads; None leaves it as it is. More than four a core are
    not begun, which is told in a note.
    """
    if asked is None:
        return

    most = TIMES * cores()
    if asked > most:
        warnings.warn(
            f"training.threads is {asked:,} and this machine has {cores()} cores for this "
            f"process, so {most} threads compute; leave the setting out to have one a core.",
            stacklevel=2,
        )
    torch.set_num_threads(min(asked, most))
