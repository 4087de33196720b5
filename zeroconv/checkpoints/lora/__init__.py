"""Files that change a base's weights: LoRA, LoHa, LoKr, DoRA and whole differences.

Two families of names. diffusers and peft write a module's own name with dots,
`unet.mid_block…to_q.lora_A.weight`; kohya's scripts and LyCORIS, and with them A1111 and ComfyUI,
write it with underscores, `lora_unet_mid_block_…q.lora_down.weight`, after diffusers' names or the
original ones. A file becomes `{part: {module: change}}`, to be merged into state dicts.
"""

from __future__ import annotations

from zeroconv.checkpoints.lora.changes import (
    Change,
    Decomposed,
    Difference,
    Hadamard,
    Kronecker,
    LowRank,
)
from zeroconv.checkpoints.lora.few_steps import LCM, LCM_UNET, FewSteps
from zeroconv.checkpoints.lora.merging import Merged, merge
from zeroconv.checkpoints.lora.reading import BASE, FILE, Lora, read_lora
from zeroconv.checkpoints.lora.search import find_lora
from zeroconv.checkpoints.lora.strength import PARTS, Strength, parse_lora, strength_of

__all__ = [
    "BASE",
    "FILE",
    "LCM",
    "LCM_UNET",
    "PARTS",
    "Change",
    "Decomposed",
    "Difference",
    "FewSteps",
    "Hadamard",
    "Kronecker",
    "Lora",
    "LowRank",
    "Merged",
    "Strength",
    "find_lora",
    "merge",
    "parse_lora",
    "read_lora",
    "strength_of",
]
