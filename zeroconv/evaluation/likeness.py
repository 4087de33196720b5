"""Whether made pictures are like real ones, and unlike each other: FID, KID, diversity, CLIP
score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from PIL import Image

from zeroconv.annotators.placing import placed
from zeroconv.annotators.pretrained import load_part, load_pretrained
from zeroconv.checkpoints.reading import WEIGHT_FILES
from zeroconv.evaluation import distribution, inception, reader
from zeroconv.evaluation.metrics import interval
from zeroconv.stopping import stop_if_asked

Extract = Callable[[Sequence[Image.Image]], ndarray]  # pictures → (N, D)


def make_features(name: str = "auto") -> tuple[Extract, str]:
    """The features that distances are measured in, and their name.

    "auto" or "playroom": the playroom reader's own (256). A `.safetensors` file: the weights of
    FID's Inception-v3 (2048), see `inception`. Anything else: the folder or hub id of a
    `transformers` vision model, such as DINOv2. Files that can hold code (TorchScript, pickles) are
    refused. Raises UserError.
    """
    if name in ("auto", "playroom"):
        return lambda images: reader.read(images).features, "playroom reader"
    if Path(name).suffix in WEIGHT_FILES or Path(name).is_file():
        return _inception(Path(name).expanduser()), name
    return _transformer(name), name


def _inception(path: Path) -> Extract:
    net = inception.load_inception(path)

    @torch.no_grad()
    def extract(images: Sequence[Image.Image]) -> ndarray:
        parts = []
        for start in range(0, len(images), 16):
            stop_if_asked()
            # float in 0–255
            pixels = distribution.clean_resize(images[start : start + 16], inception.SIZE)
            x = placed(net, {"x": torch.from_numpy(pixels).permute(0, 3, 1, 2)})["x"]
            parts.append(net(x))
        return torch.cat(parts).float().cpu().numpy()

    return extract


def _transformer(name: str) -> Extract:
    from transformers import AutoImageProcessor, AutoModel

    net = load_pretrained(AutoModel, name, "vision model")
    processor = load_part(AutoImageProcessor, name, "vision model")

    @torch.no_grad()
    def extract(images: Sequence[Image.Image]) -> ndarray:
        parts = []
        for start in range(0, len(images), 16):
            stop_if_asked()
            x = processor(images=list(images[start : start + 16]), return_tensors="pt")
            out = net(**placed(net, x))
            pooled = getattr(out, "pooler_output", None)
            parts.append((out.last_hidden_state[:, 0] if pooled is None else pooled).flatten(1))
        return torch.cat(parts).float().cpu().numpy()

    return extract


def distances(
    extract: Extract, real: Sequence[Image.Image], sets: dict[str, list[Image.Image]]
) -> dict[str, Any]:
    """FID and KID of each set of pictures to the real ones; few pictures bias FID upwards, KID
    not.
    """
    truth = extract(real)
    table: dict[str, Any] = {"fid": {}, "kid": {}}
    for name, images in sets.items():
        if len(images) < 4:  # too few for an interval
            continue
        features = extract(images)
        table["fid"][name] = distribution.bootstrap(
            distribution.frechet_distance, features, truth, draws=50
        )
        table["kid"][name] = distribution.bootstrap(
            distribution.kernel_distance, features, truth, draws=50
        )
    return table


def diversity(
    extract: Extract, made: list[Image.Image], more: list[list[Image.Image]], count: int
) -> dict[str, dict[str, float]]:
    """Mean distance between pictures of one hint and prompt but different seeds, in shares of the
    mean distance between pictures of different hints: 0 where the seed changes nothing, 1 where the
    hint fixes nothing.
    """
    if not more or count < 2:
        return {}
    # (pairs, seeds, D)
    groups = np.stack([extract(images[:count]) for images in [made, *more]], axis=1)
    between = distribution.diversity(groups[:, 0][None])[0]
    return {
        "diversity": interval((distribution.diversity(groups) / max(float(between), 1e-9)).tolist())
    }


def clip_scores(
    name: str, texts: Sequence[str], sets: dict[str, list[Image.Image]]
) -> dict[str, Any]:
    """100 × cosine of picture and prompt by a CLIP from a folder or hub id (Hessel et al. 2021),
    never below 0.
    """
    from transformers import AutoProcessor, CLIPModel

    net, processor = (
        load_pretrained(CLIPModel, name, "CLIP"),
        load_part(AutoProcessor, name, "CLIP"),
    )
    table = {}
    for column, images in sets.items():
        values: list[float] = []
        for start in range(0, len(images), 16):
            stop_if_asked()
            part = list(images[start : start + 16])
            x = processor(
                text=list(texts[start : start + len(part)]),
                images=part,
                return_tensors="pt",
                padding=True,
                truncation=True,
            )
            with torch.no_grad():
                out = net(**placed(net, x))
            values += (100 * (out.image_embeds * out.text_embeds).sum(-1)).clamp_min(0).tolist()
        if values:
            table[column] = interval(values)
    return table
