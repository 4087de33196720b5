"""Held-out pictures with their hints and captions: what a control is asked to follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from zeroconv.conditions import find
from zeroconv.data import Example, open_dataset
from zeroconv.errors import UserError
from zeroconv.stopping import stop_if_asked


@dataclass(frozen=True)
class Pair:
    hint: Image.Image  # RGB, or RGBA with a hole
    image: Image.Image
    caption: str
    truth: Any  # what the condition's score compares with what is read from a picture
    name: str = ""


def load_pairs(data: str, condition: str, count: int, size: int) -> list[Pair]:
    """`count` held-out pairs of a data spec, see `zeroconv.data.open_dataset`.

    Of the playroom's scenes only those with a person count for a pose; stickers are those of
    held-out concepts, laid on as many backgrounds as it takes. Raises UserError where there are too
    few pictures, or no such hint.
    """
    dataset = open_dataset(
        held_out_spec(data, condition, count), condition=condition, size=size, limit=count
    )
    if len(dataset) < count:
        raise UserError(
            f"the data {data} holds {len(dataset)} pictures; ask for no more (--limit)."
        )
    pairs = []
    for i in range(count):
        stop_if_asked()
        pairs.append(as_pair(dataset[i], condition))
    return pairs


def held_out_spec(data: str, condition: str, count: int) -> str:
    """A short name such as "stickers" as the spec of what must be opened."""
    kind, _, rest = data.partition(":")
    if kind == "playroom" and "?" not in data:
        spec = data if rest else "playroom:test"
        spec += "" if ":" in spec.partition(":")[2] else f":{count}"
        return spec + ("?only=person" if condition == "pose" else "")
    if kind == "stickers" and "?" not in data:
        scenes = len(open_dataset(f"{data}?split=test"))
        return f"{data}?split=test&views={-(-count // scenes)}"
    return data


def as_pair(example: Example, condition: str) -> Pair:
    assert example.hint is not None
    entry = find(condition)
    if entry.name == "pose":
        if example.people is None:
            raise UserError(
                f"{example.key}: a pose is scored joint by joint, so the data needs them; "
                "`zeroconv annotate pose` "
                'writes them beside the hints as OpenPose\'s JSON, the column "pose" of '
                "metadata.jsonl."
            )
        truth: Any = list(example.people)
    else:
        pixels = np.asarray(
            example.hint if example.hint.mode == "RGBA" else example.hint.convert("RGB")
        )
        truth = entry.decode(pixels)
    return Pair(example.hint, example.image, example.caption, truth, example.key)
