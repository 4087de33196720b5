"""The playroom base: a text encoder and a UNet, trained as one on cached latents."""

from __future__ import annotations

from zeroconv.scratch.base.model import TextToLatent
from zeroconv.scratch.base.task import BaseTask

__all__ = ["BaseTask", "TextToLatent"]
