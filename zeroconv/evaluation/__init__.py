"""How well a control is followed: generate from held-out hints, read the condition back,
compare.
"""

from __future__ import annotations

from zeroconv.evaluation.fidelity import evaluate
from zeroconv.evaluation.metrics import interval, psnr, rmse

__all__ = ["evaluate", "interval", "psnr", "rmse"]
