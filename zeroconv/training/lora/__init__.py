"""Training a LoRA of the base: `train_lora`, beside the control's `zeroconv.training.train`."""

from __future__ import annotations

from zeroconv.training.lora.run import train_lora

__all__ = ["train_lora"]
