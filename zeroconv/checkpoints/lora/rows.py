"""A change of one matrix, as changes of rows of it: some layouts have query, key and value in one
matrix, and a base has three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from zeroconv.checkpoints.flow.layout import Ranges, taken
from zeroconv.checkpoints.lora.changes import Change, Decomposed, Difference, LowRank
from zeroconv.errors import UserError


@dataclass(frozen=True)
class Rows:
    """Rows of another change, whose weight has `total` rows."""

    change: Change
    rows: Ranges
    total: int

    def delta(self, weight: Tensor) -> Tensor:
        # of the whole weight its shape alone is read
        whole = weight.new_empty((self.total, *weight.shape[1:]), device="meta")
        return taken(self.change.delta(whole), self.rows)

    def fits(self, shape: Sequence[int]) -> bool:
        count = sum(stop - start for start, stop in self.rows)
        return len(shape) > 0 and shape[0] == count and self.change.fits((self.total, *shape[1:]))

    @property
    def sizes(self) -> str:
        return self.change.sizes


def rows_of(change: Change, rows: Ranges, total: int, where: str) -> Change:
    """The change of these rows of a weight with `total` rows. Raises UserError for one that cannot
    be divided: a DoRA with a length for each input.
    """
    if isinstance(change, Decomposed):
        if not change.outputs:
            raise UserError(
                f"{where} has a DoRA's length for each input of a matrix that the base has in "
                "several; save it as a LoRA, or merged into its base."
            )
        inner = rows_of(change.change, rows, total, where)
        if change.magnitude.numel() != total:
            return replace(change, change=inner)  # which fits nowhere, as is said
        return replace(change, change=inner, magnitude=taken(change.magnitude.flatten(), rows))
    if isinstance(change, LowRank) and change.core is None and len(change.up) == total:
        return replace(change, up=taken(change.up, rows))
    if isinstance(change, Difference) and len(change.value) == total:
        return Difference(taken(change.value, rows))
    return Rows(change, rows, total)
