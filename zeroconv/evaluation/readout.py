"""Reading depth from a playroom picture: a linear probe of the frozen base model's own features.

A network that made a picture knows where things stand in it, and a linear map can say so (Chen et al. 2023, "Beyond
surface statistics"). The picture is encoded by the VAE, passed through the frozen encoder at timestep 0 with the empty
prompt, and a ridge regression takes the features of every latent position to its inverse depth. It is fitted in closed
form on training scenes; its error on real test scenes, the floor, is reported beside every figure. It is only the
judge: no control is trained on it, and no control touches the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from zeroconv.backbones import Backbone
from zeroconv.files import atomic_write

ASSET = Path(__file__).resolve().parent.parent / "assets" / "playroom-depth-readout.safetensors"


@torch.no_grad()
def features(backbone: Backbone, images: Sequence[Image.Image]) -> Tensor:
    """Pictures → (N, F, h, w) at the latent's size: latents, all encoder states, and the position in the frame."""
    pixels = np.stack([np.asarray(image.convert("RGB")) for image in images])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    z = backbone.latents_from_moments(backbone.encode_image(x), sample=False)
    text = backbone.embed_text([""])[[0] * len(z)]
    size = z.shape[-2:]
    states = [
        nn.functional.interpolate(s.float(), size, mode="bilinear") for s in backbone.encode(z, torch.tensor(0), text)
    ]
    y, x_ = torch.meshgrid(torch.linspace(-1, 1, size[0]), torch.linspace(-1, 1, size[1]), indexing="ij")
    place = torch.stack([torch.ones_like(y), y, x_, y * y, x_ * x_, x_ * y]).expand(len(z), -1, -1, -1)
    return torch.cat([z.float(), *states[:9], place.to(z.device)], dim=1)


class DepthReadout:
    """Weights (F,) of the linear map to inverse depth in shares of the hint's range."""

    def __init__(self, weights: Tensor, scale: Tensor) -> None:
        self.weights, self.scale = weights, scale

    @classmethod
    def fit(cls, backbone: Backbone, count: int = 1000, ridge: float = 1e-3, batch_size: int = 32) -> DepthReadout:
        """Ridge regression over `count` scenes of the training split."""
        from zeroconv import playroom

        gram: Tensor | None = None
        cross: Tensor | None = None
        seeds = playroom.split_seeds("train", count, start=1_000_000)  # far from the base model's own
        for first in range(0, count, batch_size):
            scenes = [playroom.render(seed) for seed in seeds[first : first + batch_size]]
            x = features(backbone, [scene.image for scene in scenes])
            y = torch.from_numpy(np.stack([shrink(playroom.depth_hint(s.depth), x.shape[-1]) for s in scenes]))
            rows, target = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).double(), y.reshape(-1).double()
            gram = rows.T @ rows if gram is None else gram + rows.T @ rows
            cross = rows.T @ target if cross is None else cross + rows.T @ target
        assert gram is not None and cross is not None
        spread = gram.diagonal().sqrt().clamp_min(1e-9)
        normal = gram / spread[:, None] / spread
        weights = torch.linalg.solve(normal + ridge * torch.eye(len(normal)).double() / 100, cross / spread)
        return cls(weights.float(), spread.float())

    def read(self, backbone: Backbone, images: Sequence[Image.Image], batch_size: int = 32) -> np.ndarray:
        """Pictures → inverse depth (N, h, w) float32 in [0, 1], at the latent's size."""
        parts = [features(backbone, images[i : i + batch_size]) for i in range(0, len(images), batch_size)]
        linear = self.weights / self.scale
        return torch.cat([torch.einsum("nfhw,f->nhw", part, linear) for part in parts]).clamp(0, 1).numpy()

    def save(self, path: Path = ASSET) -> None:
        from safetensors.torch import save_file

        with atomic_write(path) as temporary:
            save_file({"weights": self.weights, "scale": self.scale}, temporary)

    @classmethod
    def load(cls, path: Path = ASSET) -> DepthReadout:
        from safetensors.torch import load_file

        state = load_file(path)
        return cls(state["weights"], state["scale"])


def shrink(hint: np.ndarray, size: int) -> np.ndarray:
    """A depth hint (H, W) uint8 → float32 (size, size) in [0, 1], averaged over the pixels of each position."""
    step = hint.shape[0] // size
    return hint.reshape(size, step, size, step).mean(axis=(1, 3)).astype(np.float32) / 255
