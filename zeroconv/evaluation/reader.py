"""The playroom reader: one small network that reads depth, normals, classes and people from a
playroom picture.

It is the judge of what a control was asked for and a picture shows, and never a training loss: a
control that was rewarded by its judge would learn the judge's mistakes. `training.reward` asks a
second reader, of another file. Trained by `zeroconv.scratch.reader` on rendered scenes.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray
from PIL import Image
from torch import Tensor, nn

from zeroconv.errors import UserError
from zeroconv.files import atomic_write
from zeroconv.stopping import stop_if_asked

ASSET = Path(__file__).resolve().parent.parent / "assets" / "playroom-reader.safetensors"
SIZE = 128  # pixels; other sizes are scaled to it
CLASSES, JOINTS = 7, 18
WIDTH = 24  # channels of the judge's first level
STRIDE = 4  # pixels a cell of the people's maps
REACH = 32.0  # pixels: the unit of a joint's offset


class Block(nn.Module):
    """Two normalised convolutions around a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            h = conv(nn.functional.silu(norm(h)))
        return x + h


@dataclass
class Maps:
    """What the network says of N pictures at 128 pixels."""

    inverse_depth: Tensor  # (N, 128, 128): 1/metres
    normal: Tensor  # (N, 3, 128, 128), unit
    classes: Tensor  # (N, 7, 128, 128) logits
    centre: Tensor  # (N, 32, 32) logits: a person's middle lies in this cell
    # (N, 18, 2, 32, 32): from the cell's middle to each joint, in units of `REACH` pixels
    joints: Tensor
    features: Tensor  # (N, 256): what distances between sets of pictures are measured in


def widths_of(width: int) -> tuple[int, ...]:
    """Channels at 64, 32, 16 and 8 cells, of those at 64: 24 → (24, 48, 96, 160). Raises UserError
    where the eight groups of a norm cannot share them.
    """
    if width < 8 or width % 8 or width > 256:
        raise UserError(f"a reader's width is a multiple of 8 from 8 to 256, not {width}.")
    return width, 2 * width, 4 * width, 8 * round(width * 20 / 3 / 8)


class Reader(nn.Module):
    """A U-shaped network with one dense head and one head for people; the judge has 1.9 million
    parameters.
    """

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        widths = widths_of(width)
        self.stem = nn.Conv2d(3, widths[0], 4, stride=2, padding=1)
        depths = (1, 2, 2, 2)
        self.down = nn.ModuleList(
            nn.Sequential(*(Block(w) for _ in range(n)))
            for w, n in zip(widths, depths, strict=True)
        )
        self.shrink = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths)
        )
        self.whole = nn.Linear(widths[-1], widths[-1])  # what the whole picture says to every place
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(Block(w) for w in widths[:-1])
        self.dense = nn.Conv2d(widths[0], 4 * (1 + 3 + CLASSES), 3, padding=1)
        self.people = nn.Sequential(
            Block(widths[1]), nn.SiLU(), nn.Conv2d(widths[1], 1 + 2 * JOINTS, 3, padding=1)
        )

    def forward(self, images: Tensor) -> Maps:
        """images (N, 3, 128, 128) in [−1, 1]."""
        x = self.stem(images)
        states = []
        for level, blocks in enumerate(self.down):
            x = blocks(x if level == 0 else self.shrink[level - 1](x))
            states.append(x)
        pooled = x.mean((2, 3))
        features = torch.cat([states[2].mean((2, 3)), pooled], 1)  # (N, 96 + 160)
        x = x + self.whole(pooled)[:, :, None, None]
        for level in reversed(range(len(self.up))):
            x = states[level] + nn.functional.interpolate(
                self.grow[level](x), scale_factor=2, mode="nearest"
            )
            x = self.up[level](x)
            if level == 1:
                people = self.people(x)
        dense = nn.functional.pixel_shuffle(self.dense(x), 2)
        return Maps(
            inverse_depth=dense[:, 0],
            normal=nn.functional.normalize(dense[:, 1:4], dim=1),
            classes=dense[:, 4:],
            centre=people[:, 0],
            joints=people[:, 1:].unflatten(1, (JOINTS, 2)),
            features=features,
        )


@dataclass
class Readings:
    """The maps of pictures as arrays, at the pictures' own size."""

    depth: ndarray  # (N, H, W) float32 metres
    normal: ndarray  # (N, H, W, 3) float32 unit
    segmentation: ndarray  # (N, H, W) uint8
    pose: list[list[ndarray]]  # people (18, 3): x, y in pixels, confidence
    features: ndarray  # (N, 256) float32


@lru_cache(maxsize=1)
def load_reader(path: Path = ASSET) -> Reader:
    """The embedded reader, in float32. Raises UserError where it is missing."""
    if not path.is_file():
        raise UserError(
            f"the playroom reader {path} is missing; install the package with its assets."
        )
    return open_reader(path)


def open_reader(path: Path) -> Reader:
    """The reader of a file that `save_reader` wrote, of any width, in float32, frozen. Raises
    UserError where the file holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = {name: value.float() for name, value in load_file(path).items()}
        reader = Reader(len(state["stem.weight"]))
        reader.load_state_dict(state)
    except (SafetensorError, OSError, KeyError, RuntimeError, UserError) as error:
        raise UserError(
            f"{path} is no reader; train one with python -m zeroconv.scratch.reader."
        ) from error
    reader.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return reader.eval().requires_grad_(False)


def save_reader(reader: Reader, path: Path = ASSET) -> None:
    """Write the weights in float16."""
    from safetensors.torch import save_file

    with atomic_write(path) as temporary:
        save_file(
            {name: value.half().contiguous() for name, value in reader.state_dict().items()},
            temporary,
        )


KEPT_BYTES = 2**28  # of readings that are remembered: 900 pictures of 128 pixels
_kept: OrderedDict[bytes, Readings] = OrderedDict()


def read(
    images: Sequence[Image.Image], reader: Reader | None = None, batch_size: int = 32
) -> Readings:
    """Everything the reader sees in pictures of one size (square pictures are what it has learned
    from).

    What the embedded reader saw in the same pictures, in the same order, is remembered: a report
    asks them for a condition and for features, an experiment for classes too. Its arrays cannot be
    written to. One that is given reads each time.
    """
    if reader is not None:
        return _read(images, reader, batch_size)
    name = hashlib.sha256(repr((batch_size, [image.size for image in images])).encode())
    for image in images:
        name.update(_pixels(image).tobytes())
    key = name.digest()
    readings = _kept.pop(key, None)
    if readings is None:
        readings = _read(images, load_reader(), batch_size)
        for array in _arrays(readings):
            array.flags.writeable = False
    _kept[key] = readings  # as the newest
    while (
        len(_kept) > 1
        and sum(a.nbytes for one in list(_kept.values()) for a in _arrays(one)) > KEPT_BYTES
    ):
        _kept.popitem(last=False)
    return readings


def _arrays(readings: Readings) -> list[ndarray]:
    return [readings.depth, readings.normal, readings.segmentation, readings.features]


@torch.no_grad()
def _read(images: Sequence[Image.Image], reader: Reader, batch_size: int) -> Readings:
    size = images[0].size
    parts: list[Maps] = []
    for start in range(0, len(images), batch_size):
        stop_if_asked()
        pixels = [_pixels(image) for image in images[start : start + batch_size]]
        x = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
        parts.append(reader(x.contiguous(memory_format=torch.channels_last)))
    depth = torch.cat([1 / part.inverse_depth.clamp(1 / 20, 2.0) for part in parts])
    normal = torch.cat([part.normal for part in parts])
    classes = torch.cat([part.classes for part in parts])
    if size != (SIZE, SIZE):
        shape = (size[1], size[0])
        depth = _resize(depth[:, None], shape)[:, 0]
        normal = nn.functional.normalize(_resize(normal, shape), dim=1)
        classes = _resize(classes, shape)
    scale = np.array([size[0] / SIZE, size[1] / SIZE, 1.0], np.float32)
    return Readings(
        depth=depth.numpy(),
        normal=normal.permute(0, 2, 3, 1).numpy(),
        segmentation=classes.argmax(1).byte().numpy(),
        pose=[
            [p * scale for p in find_people(c, j)]
            for m in parts
            for c, j in zip(m.centre, m.joints, strict=True)
        ],
        features=torch.cat([part.features for part in parts]).numpy(),
    )


def find_people(centre: Tensor, joints: Tensor, threshold: float = 0.3) -> list[ndarray]:
    """Peaks of the centre map (h, w) and the joints (18, 2, h, w) their cells vote for → people
    (18, 3) in pixels.
    """
    heat = centre.sigmoid()
    peaks = (heat == nn.functional.max_pool2d(heat[None, None], 5, 1, 2)[0, 0]) & (heat > threshold)
    people = []
    for row, column in sorted(peaks.nonzero().tolist(), key=lambda at: -float(heat[at[0], at[1]])):
        window = (slice(max(0, row - 1), row + 2), slice(max(0, column - 1), column + 2))
        weight = heat[window]
        y, x = torch.meshgrid(
            torch.arange(heat.shape[0]), torch.arange(heat.shape[1]), indexing="ij"
        )
        # (2, a, b)
        cells = torch.stack([x, y]).float()[(slice(None), *window)] * STRIDE + STRIDE / 2
        votes = cells + REACH * joints[(slice(None), slice(None), *window)]  # (18, 2, a, b)
        position = (votes * weight).sum((-2, -1)) / weight.sum()
        sure = torch.full((JOINTS, 1), float(heat[row, column]))
        people.append(torch.cat([position, sure], 1).numpy())
    return people


def _pixels(image: Image.Image) -> ndarray:
    image = image.convert("RGB")
    return np.asarray(
        image
        if image.size == (SIZE, SIZE)
        else image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    )


def _resize(x: Tensor, shape: tuple[int, int]) -> Tensor:
    return nn.functional.interpolate(
        x, shape, mode="bilinear", align_corners=False, antialias=shape[0] < SIZE
    )
