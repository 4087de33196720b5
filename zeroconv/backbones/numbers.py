"""Whether latents and pictures are numbers: what is NaN would be saved as a black picture."""

from __future__ import annotations

import torch
from torch import Tensor

from zeroconv.errors import UserError


def check_numbers(values: Tensor, what: str, dtype: torch.dtype) -> None:
    """Raise UserError where a number of some picture is NaN or infinite.

    found (N, …): a row a picture. what: names it in the sentence. dtype: what it was computed in.
    """
    if not values.numel():
        return
    bad = ~torch.isfinite(values).flatten(1).all(1)
    if not bool(bad.any()):
        return

    numbers = ", ".join(str(i + 1) for i in bad.nonzero().flatten().tolist()[:5])
    why = "the base or a control is damaged, or the guidance or a weight is too large"
    if dtype == torch.float16:
        why = "in float16, numbers above 65504 overflow: use bfloat16 or float32"
    raise UserError(
        f"{what} are no numbers (NaN or infinite; {int(bad.sum())} of {len(bad)} in the batch, "
        f"first {numbers}); {why}."
    )
