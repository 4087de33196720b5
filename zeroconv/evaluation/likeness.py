"""Whether made pictures are like real ones, and unlike each other: FID, KID, diversity, CLIP score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from PIL import Image

from zeroconv.errors import UserError
from zeroconv.evaluation import distribution, reader
from zeroconv.evaluation.metrics import interval

Extract = Callable[[Sequence[Image.Image]], ndarray]  # pictures → (N, D)


def make_features(name: str = "auto") -> tuple[Extract, str]:
    """The features that distances are measured in, and their name.

    "auto" or "playroom": the playroom reader's own (256). A `.pt` file: a TorchScript Inception, as FID's authors
    distribute it. Anything else: the folder or hub id of a `transformers` vision model, such as DINOv2.
    """
    if name in ("auto", "playroom"):
        return lambda images: reader.read(images).features, "playroom reader"
    if name.endswith(".pt"):
        return _torchscript(Path(name)), name
    return _transformer(name), name


def _torchscript(path: Path) -> Extract:
    if not path.is_file():
        raise UserError(f"there is no feature network {path}; give a TorchScript Inception file, or a hub id.")
    net = torch.jit.load(str(path)).eval()

    @torch.no_grad()
    def extract(images: Sequence[Image.Image]) -> ndarray:
        pixels = distribution.clean_resize(images, 299)  # (N, 299, 299, 3) float in 0–255
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        return torch.cat([net(part, return_features=True) for part in x.split(16)]).float().numpy()

    return extract


def _transformer(name: str) -> Extract:
    from transformers import AutoImageProcessor, AutoModel

    try:
        net, processor = AutoModel.from_pretrained(name).eval(), AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UserError(f"{name} is no vision model that can be loaded ({str(error).splitlines()[0]}).") from error

    @torch.no_grad()
    def extract(images: Sequence[Image.Image]) -> ndarray:
        parts = []
        for start in range(0, len(images), 16):
            x = processor(images=list(images[start : start + 16]), return_tensors="pt")
            out = net(**x)
            pooled = getattr(out, "pooler_output", None)
            parts.append((out.last_hidden_state[:, 0] if pooled is None else pooled).flatten(1))
        return torch.cat(parts).float().numpy()

    return extract


def distances(extract: Extract, real: Sequence[Image.Image], sets: dict[str, list[Image.Image]]) -> dict[str, Any]:
    """FID and KID of each set of pictures to the real ones; few pictures bias FID upwards, KID not."""
    truth = extract(real)
    table: dict[str, Any] = {"fid": {}, "kid": {}}
    for name, images in sets.items():
        if len(images) < 4:  # too few for an interval
            continue
        found = extract(images)
        table["fid"][name] = distribution.bootstrap(distribution.frechet_distance, found, truth, draws=50)
        table["kid"][name] = distribution.bootstrap(distribution.kernel_distance, found, truth, draws=50)
    return table


def diversity(
    extract: Extract, made: list[Image.Image], more: list[list[Image.Image]], count: int
) -> dict[str, dict[str, float]]:
    """Mean distance between pictures of one hint and prompt but different seeds, in shares of the mean distance
    between pictures of different hints: 0 where the seed changes nothing, 1 where the hint fixes nothing."""
    if not more or count < 2:
        return {}
    groups = np.stack([extract(images[:count]) for images in [made, *more]], axis=1)  # (pairs, seeds, D)
    between = distribution.diversity(groups[:, 0][None])[0]
    return {"diversity": interval((distribution.diversity(groups) / max(float(between), 1e-9)).tolist())}


def clip_scores(name: str, texts: Sequence[str], sets: dict[str, list[Image.Image]]) -> dict[str, Any]:
    """100 × cosine of picture and prompt by a CLIP from a folder or hub id (Hessel et al. 2021), never below 0."""
    from transformers import AutoProcessor, CLIPModel

    try:
        net, processor = CLIPModel.from_pretrained(name).eval(), AutoProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UserError(f"{name} is no CLIP that can be loaded ({str(error).splitlines()[0]}).") from error
    table = {}
    for column, images in sets.items():
        values: list[float] = []
        for start in range(0, len(images), 16):
            part = list(images[start : start + 16])
            x = processor(
                text=list(texts[start : start + len(part)]), images=part, return_tensors="pt", padding=True,
                truncation=True,
            )  # fmt: skip
            with torch.no_grad():
                out = net(**x)
            values += (100 * (out.image_embeds * out.text_embeds).sum(-1)).clamp_min(0).tolist()
        if values:
            table[column] = interval(values)
    return table
