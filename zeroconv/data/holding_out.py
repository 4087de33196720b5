"""Pictures of a data set that are kept for measuring."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from zeroconv.data.dataset import Dataset
from zeroconv.errors import UserError


def hold_out(dataset: Dataset, count: int) -> tuple[Dataset, Dataset]:
    """Set aside `count` examples, but at most a tenth, by the hash of their names: the same ones
    when the set grows.

    Views of one sticker stay together.
    """
    marks = [
        hashlib.sha256(dataset.name(i).partition("#")[0].encode()).digest()
        for i in range(len(dataset))
    ]
    share = min(count, len(dataset) // 10)
    if share < 2:
        raise UserError(
            f"{len(dataset)} pictures are too few to hold some out; give at least 20, or name "
            "data.validation."
        )
    edge = sorted(marks)[share - 1]
    held = tuple(row for row, mark in zip(dataset.rows, marks, strict=True) if mark <= edge)
    rest = tuple(row for row, mark in zip(dataset.rows, marks, strict=True) if mark > edge)
    return replace(dataset, rows=rest), replace(dataset, rows=held)
