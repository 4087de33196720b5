"""Tensors that wait while others are computed: out of the memory of the device that computes."""

from __future__ import annotations

import tempfile
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor


class Parked:
    """One tensor at a time. A graphics card's waits in main memory, the processor's in a nameless
    temporary file.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._kept: Tensor | None = None
        self._like: tuple[torch.Size, torch.dtype, torch.device] | None = None

    def put(self, x: Tensor) -> None:
        """Take a tensor of any shape; the one before it is gone."""
        self._like = (x.shape, x.dtype, x.device)
        if x.device.type != "cpu":
            self._kept = x.to("cpu")
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="zeroconv-tiles-")  # noqa: SIM115
        self._file.seek(0)
        numbers: Any = x.contiguous().view(-1).view(torch.uint8).numpy()
        self._file.write(numbers)
        self._file.flush()

    def get(self) -> Tensor:
        """The tensor, where it was."""
        assert self._like is not None
        shape, dtype, device = self._like
        if self._file is None:
            assert self._kept is not None
            return self._kept.to(device)
        self._file.seek(0)
        count = shape.numel() * dtype.itemsize
        return torch.from_numpy(np.fromfile(self._file, np.uint8, count)).view(dtype).view(shape)

    def close(self) -> None:
        """Give it up."""
        if self._file is not None:
            self._file.close()
        self._kept = None
