"""Soft edges by HED, holistically-nested edge detection (Xie & Tu 2015): a VGG-16 with an edge map
at every size.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from zeroconv.errors import UserError
from zeroconv.stopping import stop_if_asked

MEANS = (104.007, 116.669, 122.679)  # of blue, green, red, in grey levels
CONVOLUTIONS = (2, 2, 3, 3, 3)  # of each block
# pixels: HED learned from 481; a photograph of 12 megapixels would take 10 GB and double every
# edge
LONGEST = 1024


@torch.no_grad()
def softedge(image: ndarray, weights: Path) -> ndarray:
    """Picture (H, W, 3) uint8 RGB → edge strength (H, W) uint8. Sides above `LONGEST` are read
    smaller and enlarged.
    """
    state, (height, width) = load_hed(weights), image.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    if scale < 1:
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    x = torch.from_numpy(image[..., ::-1].astype(np.float32) - np.array(MEANS, np.float32)).permute(
        2, 0, 1
    )[None]
    edges = (hed(x, state)[0].numpy() * 255 + 0.5).astype(np.uint8)
    return (
        edges if scale == 1 else cv2.resize(edges, (width, height), interpolation=cv2.INTER_LINEAR)
    )


def hed(x: Tensor, state: dict[str, Tensor]) -> Tensor:
    """x (N, 3, H, W), BGR without its means → probability of an edge (N, H, W)."""
    size, sides = x.shape[-2:], []
    for block, count in enumerate(CONVOLUTIONS, start=1):
        if block > 1:
            x = nn.functional.max_pool2d(x, 2, ceil_mode=True)
        for number in range(count):
            stop_if_asked()
            name = f"block{block}.{number}"
            x = nn.functional.relu(
                nn.functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)
            )
        side = nn.functional.conv2d(x, state[f"dsn{block}.weight"], state[f"dsn{block}.bias"])
        sides.append(nn.functional.interpolate(side, size, mode="bilinear", align_corners=False))
    fused = nn.functional.conv2d(torch.cat(sides, 1), state["fuse.weight"], state["fuse.bias"])
    return fused[:, 0].sigmoid()


@lru_cache(maxsize=1)
def load_hed(path: Path) -> dict[str, Tensor]:
    """Weights of a Keras file (`blockB/layers/conv2d_N/vars/0`, HWIO), as torch's. Raises
    UserError.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            "HED's weights are an HDF5 file: pip install 'zeroconv[annotators]'."
        ) from error
    state: dict[str, Tensor] = {}
    try:
        with h5py.File(path) as file:
            for block, count in enumerate(CONVOLUTIONS, start=1):
                for number in range(count):
                    layer = "conv2d" if number == 0 else f"conv2d_{number}"
                    _take(
                        state, f"block{block}.{number}", file[f"block{block}/layers/{layer}/vars"]
                    )
                _take(state, f"dsn{block}", file[f"dsn{block}/vars"])
            _take(state, "fuse", file["fuse/vars"])
    except (OSError, KeyError) as error:
        raise UserError(f"{path} is not HED's weights file ({error}); fetch it again.") from error
    return state


def _take(state: dict[str, Tensor], name: str, group) -> None:
    state[f"{name}.weight"] = (
        torch.from_numpy(np.array(group["0"])).permute(3, 2, 0, 1).contiguous()
    )
    state[f"{name}.bias"] = torch.from_numpy(np.array(group["1"]))
