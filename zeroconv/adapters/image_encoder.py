"""CLIP's image encoder, which tells an IP-Adapter what is in a picture."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zeroconv.backbones.loading.building import empty, fill
from zeroconv.backbones.loading.locate import locate
from zeroconv.checkpoints.bounds import check_config
from zeroconv.checkpoints.reading import read_config, read_weights
from zeroconv.errors import UserError

WEIGHTS = ("model", "pytorch_model")
CLASS_NAME = "CLIPVisionModelWithProjection"
# of the pictures that CLIP was trained on (Radford et al. 2021, the released code)
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class ImageEncoder:
    """A frozen CLIPVisionModelWithProjection."""

    def __init__(self, model: Any, name: str = "image encoder") -> None:
        self.model, self.name = model.requires_grad_(False).eval(), name

    @classmethod
    def load(cls, x: str | os.PathLike, dtype: torch.dtype | None = None) -> ImageEncoder:
        """Load a folder as transformers writes it, or a hub id. Raises UserError."""
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        files = ("config.json", *(f"{name}*" for name in WEIGHTS))
        folder = locate(os.fspath(x), "image encoder", files)
        if not (folder / "config.json").is_file():
            raise UserError(
                f"{folder} is no image encoder: give the folder with config.json and the weights "
                f"of a {CLASS_NAME}, such as models/image_encoder of IP-Adapter."
            )
        config = read_config(folder)
        named = [config.get("model_type"), *(config.get("architectures") or [])]
        if CLASS_NAME not in named:
            raise UserError(f"{folder} holds {named[-1] or 'something else'}, not a {CLASS_NAME}.")
        check_config(config, folder)
        unwanted = ("dtype", "torch_dtype", "model_type")
        known = {key: value for key, value in config.items() if key not in unwanted}
        model = empty(lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**known)), folder)
        state = {
            key: value
            for key, value in read_weights(folder, WEIGHTS).items()
            if not key.endswith("embeddings.position_ids")  # of older versions: 0, 1, 2, …
        }
        return cls(fill(model, state, folder, dtype), str(folder))

    @torch.no_grad()
    def encode(self, pictures: Sequence[Image.Image], states: bool) -> tuple[Tensor, Tensor]:
        """Pictures → their embedding (N, D) and zeros; with `states` the states before the last
        layer (N, L, D), and those of a picture of zeros.
        """
        side = self.model.config.image_size
        pixels = torch.stack([prepared(picture, side) for picture in pictures])
        pixels = pixels.to(self.device, self.dtype)
        if not states:
            embedding = self.model(pixels).image_embeds
            return embedding, torch.zeros_like(embedding)
        both = torch.cat([pixels, torch.zeros_like(pixels[:1])])
        hidden = self.model(both, output_hidden_states=True).hidden_states[-2]
        return hidden[:-1], hidden[-1:].expand(len(pixels), -1, -1)

    def width(self, states: bool) -> int:
        """How many numbers `encode` gives."""
        return self.model.config.hidden_size if states else self.model.config.projection_dim

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def to(self, *args: Any, **kwargs: Any) -> ImageEncoder:
        self.model.to(*args, **kwargs)
        return self


def prepared(picture: Image.Image, side: int) -> Tensor:
    """An RGB picture → its middle square (3, side, side), normalised as for CLIP; a note where it
    is no square.
    """
    width, height = picture.size
    if width != height:
        warnings.warn(
            f"the image encoder sees the middle square of an image prompt of {width}×{height} "
            "pixels; give a square picture to have all of it seen.",
            stacklevel=2,
        )
    short = min(width, height)
    size = (int(side * width / short), int(side * height / short))
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    pixels = np.asarray(picture.crop((left, top, left + side, top + side)), np.float32) / 255
    pixels = (pixels - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1)
