"""Generate from held-out hints, read the condition back from the pictures, compare; beside it what chance would give.

Columns of a report:
  own       pictures made with a hint, scored against that hint
  shuffled  the same pictures scored against the hint of another pair: what pictures of this world share anyway
  none      pictures of the same prompts and seeds made without control, scored against the hint
  ceiling   the real pictures through the VAE and back, scored against the hint: no generator can do better
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from zeroconv.backbones import Backbone, load_backbone
from zeroconv.conditions import CONDITIONS, annotate
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.evaluation.metrics import interval
from zeroconv.evaluation.pairs import Pair, load_pairs
from zeroconv.evaluation.readout import DepthReadout, shrink
from zeroconv.generation import Control, generate

# the four prompt settings of the paper's figure 8
PROMPTS = ("own", "empty", "insufficient", "conflicting")
INSUFFICIENT = "a high-quality, detailed, and professional image"

Score = Callable[[Sequence[Image.Image], Sequence[Image.Image]], list[dict[str, float]]]


def evaluate(
    control: str | ControlNet,
    *,
    data: str = "playroom:test",
    base: str | Backbone = "playroom",
    count: int = 200,
    count_none: int | None = None,
    prompts: str = "own",
    guidance: str = "resolution",
    cfg: float = 4.0,
    steps: int = 12,
    seed: int = 0,
    batch_size: int = 16,
    pictures: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure how well `control` is followed; returns the report as plain JSON values.

    `count_none` pictures are made without control (default: as many). `prompts` is a setting of the paper's ablation:
    own caption, empty, insufficient, or conflicting (another pair's caption). With empty prompts the two halves of
    guidance differ by the control alone, which `cond` and `resolution` then strengthen (paper, figure 5).
    `pictures`, a dict, is filled with pairs and pictures.
    The same arguments give the same report. Raises UserError for unknown names or data.
    """
    if prompts not in PROMPTS:
        raise UserError(f"There is no prompt setting {prompts!r}; choose from {', '.join(PROMPTS)}.")
    backbone = load_backbone(base) if isinstance(base, str) else base
    net = ControlNet.load(control, backbone=backbone) if isinstance(control, str) else control
    condition = (net.config.get("zeroconv") or {}).get("condition")
    if condition not in CONDITIONS:
        raise UserError(f"The control does not say which condition it follows ({condition!r}), so it cannot be scored.")
    pairs = load_pairs(data, condition, count, backbone.default_size, seed)
    texts = prompts_of(pairs, prompts)
    options: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "cfg": cfg}
    seeds = [seed + i for i in range(count)]
    hints = [pair.hint for pair in pairs]
    made = generate(backbone, texts, [Control(net, hints)], guidance=guidance, seed=seeds, **options)
    few = count if count_none is None else min(count, count_none)
    plain = generate(backbone, texts[:few], seed=seeds[:few], **options) if few else []
    shown = {
        "own": (hints, made),
        "shuffled": (hints[1:] + hints[:1], made),
        "none": (hints[:few], plain),
        "ceiling": (hints, through_vae(backbone, [pair.image for pair in pairs])),
    }
    score = scorer(condition, backbone)
    columns = {name: score(*given) for name, given in shown.items() if given[1]}
    if pictures is not None:
        pictures.update(pairs=pairs, made=made, plain=plain, scores=columns["own"])
    return {
        "control": control if isinstance(control, str) else "given",
        "base": backbone.name,
        "data": data,
        "prompts": prompts,
        "n": {name: len(values) for name, values in columns.items()},
        "seeds": [seeds[0], seeds[-1]],
        "steps": steps,
        "guidance": guidance,
        "cfg": options["cfg"],
        "metrics": {
            metric: {name: interval([value[metric] for value in values]) for name, values in columns.items()}
            for metric in columns["own"][0]
        },
    }


def prompts_of(pairs: Sequence[Pair], setting: str) -> list[str]:
    """One prompt a pair, in a setting of the paper's figure 8."""
    captions = [pair.caption for pair in pairs]
    return {
        "own": captions,
        "empty": [""] * len(pairs),
        "insufficient": [INSUFFICIENT] * len(pairs),
        "conflicting": captions[1:] + captions[:1],
    }[setting]


def through_vae(backbone: Backbone, images: Sequence[Image.Image]) -> list[Image.Image]:
    """Pictures encoded and decoded again."""
    x = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).float() / 127.5 - 1
    decoded = []
    for part in x.split(32):
        decoded += list(
            backbone.decode_latents(backbone.latents_from_moments(backbone.encode_image(part), sample=False))
        )
    return [Image.fromarray((d * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()) for d in decoded]


def scorer(condition: str, backbone: Backbone) -> Score:
    """(hints, pictures) → named figures a picture: drawn again where that can be done, read out where it must be."""
    if condition == "depth":
        return depth_scorer(backbone)

    def drawn_again(hints: Sequence[Image.Image], images: Sequence[Image.Image]) -> list[dict[str, float]]:
        grey = [
            (np.asarray(h.convert("L")), np.asarray(annotate(condition, i).convert("L")))
            for h, i in zip(hints, images, strict=True)
        ]
        return [CONDITIONS[condition].score(hint, read) for hint, read in grey]

    return drawn_again


def depth_scorer(backbone: Backbone) -> Score:
    """RMSE of inverse depth, in shares of the hint's range, at the latent's size; read out by a linear probe."""
    readout = DepthReadout.load()

    def read_out(hints: Sequence[Image.Image], images: Sequence[Image.Image]) -> list[dict[str, float]]:
        read = readout.read(backbone, images)
        truth = [shrink(np.asarray(hint.convert("L")), read.shape[-1]) for hint in hints]
        return [{"rmse": float(np.sqrt(np.mean((a - b) ** 2)))} for a, b in zip(truth, read, strict=True)]

    return read_out
