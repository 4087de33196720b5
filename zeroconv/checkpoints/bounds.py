"""Limits on the numbers of a model's config, so that a file's config can neither hang nor fill
the memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from zeroconv.errors import UserError

LARGEST = 2**24  # of any number: no width, length or vocabulary of a base comes near it
LONGEST = 4096  # entries of a list
DEEPEST = 6  # lists and dicts in each other

# numbers that say how many layers are built, and lists with an entry a level
COUNTS = {
    "layers_per_block": 64,
    "transformer_layers_per_block": 128,
    "reverse_transformer_layers_per_block": 128,
    "num_hidden_layers": 256,
    "num_layers": 256,
    "num_single_layers": 256,
    "n_layers": 256,
    "n_refiner_layers": 64,
    "num_res_blocks": 64,
    "res_blocks": 64,
    "num_trans_layer": 64,
    "num_encoder_blocks": 64,
    "num_decoder_blocks": 64,
    "steps_offset": 10,  # added to timesteps, which have to stay in the schedule
}
LEVELS = (
    "block_out_channels",
    "down_block_types",
    "up_block_types",
    "conditioning_embedding_out_channels",
    *("encoder_block_out_channels", "decoder_block_out_channels"),
    *("num_encoder_blocks", "num_decoder_blocks"),
)
MOST_LEVELS = 12
SIZES = {
    "rank": 4096,
    "num_control_type": 256,
    "num_trans_head": 256,
    "num_train_timesteps": 100_000,
    "max_position_embeddings": 2**20,
    "sample_size": 2**16,
}


def check_config(config: Mapping[str, Any], where: object) -> None:
    """Raise UserError, naming the entry, for a number, list or depth that no such model has."""
    for name, value in config.items():
        if not isinstance(name, str):
            raise UserError(
                f"{where}: its config names an entry {str(name)[:60]!r}, which is no text."
            )
        limit = COUNTS.get(name, SIZES.get(name, LARGEST))
        least = 0 if name in COUNTS else 1 if name in SIZES else -LARGEST
        if name in LEVELS and isinstance(value, list | tuple) and len(value) > MOST_LEVELS:
            raise UserError(
                f"{where}: {name} has {len(value):,} entries, but a base has at most {MOST_LEVELS} "
                "levels."
            )
        _check(value, name, where, (least, limit), 0)


def _check(value: Any, name: str, where: object, limits: tuple[int, int], depth: int) -> None:
    if depth > DEEPEST:
        raise UserError(f"{where}: {name[:80]} holds lists in lists, deeper than any config.")
    if isinstance(value, Mapping):
        for inner in value.values():
            _check(inner, name, where, limits, depth + 1)
    elif isinstance(value, list | tuple):
        if len(value) > LONGEST:
            raise UserError(
                f"{where}: {name[:80]} has {len(value):,} entries; at most {LONGEST} make sense."
            )
        for inner in value:
            _check(inner, name, where, limits, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: {name[:80]} is {value}, which is no finite number.")
    elif isinstance(value, int | float) and not limits[0] <= value <= limits[1]:
        shown = f"{value:.3g}" if isinstance(value, float) or abs(value) > 10**12 else f"{value:,}"
        raise UserError(
            f"{where}: {name[:80]} is {shown}, but {limits[0]:,} to {limits[1]:,} makes sense; "
            "the config is damaged or of another kind of model."
        )
