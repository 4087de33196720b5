"""The Inception-v3 that FID is measured in (Szegedy et al. 2015), with the weights of its first
TensorFlow release.

`pytorch-fid` and `torch-fidelity` publish these weights for torch, under the names that torchvision
gives the layers (`Mixed_5b.branch1x1.conv.weight`). As a `.safetensors` file they can be read here;
nothing else of such a file is run. It differs from torchvision's network: average pooling leaves
out the border, the last block pools by the maximum, and there is no second classifier.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, max_pool2d

from zeroconv.checkpoints.reading import read_state_dict
from zeroconv.checkpoints.strict import load_strict
from zeroconv.errors import UserError

SIZE = 299  # pixels a side
FEATURES = 2048
# of the files that are published: the classifier, and torchvision's second one and counters
_UNREAD = ("fc.", "AuxLogits.")


class Conv(nn.Module):
    """A convolution without bias, a batch norm, a ReLU."""

    def __init__(
        self, inner: int, outer: int, size: int | tuple[int, int], stride: int = 1, padding=0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outer, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self.bn(self.conv(x)))


def inner_mean(x: Tensor) -> Tensor:
    """Mean of 3×3 positions; at the border, of those that there are."""
    return avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def same_max(x: Tensor) -> Tensor:
    return max_pool2d(x, 3, stride=1, padding=1)


def halving_max(x: Tensor) -> Tensor:
    return max_pool2d(x, 3, stride=2)


Pool = Callable[[Tensor], Tensor]


class Mixed(nn.Module):
    """Branches side by side, their channels joined.

    branches: a branch is layers' names in the order they run, a "/" between two that run side by
    side on what came before; `pool` stands for the pooling.
    """

    def __init__(self, layers: dict[str, Conv], branches: tuple[str, ...], pool: Pool) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.branches, self.pool = branches, pool

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part for branch in self.branches for part in self._run(branch, x)], dim=1)

    def _run(self, branch: str, x: Tensor) -> list[Tensor]:
        *chain, last = branch.split()
        for name in chain:
            x = self._layer(name)(x)
        return [self._layer(name)(x) for name in last.split("/")]

    def _layer(self, name: str) -> Callable[[Tensor], Tensor]:
        return self.pool if name == "pool" else self.get_submodule(name)


def block_35(inner: int, pooled: int) -> Mixed:
    """At 35×35: 64 + 64 + 96 + `pooled` channels out."""
    layers = {
        "branch1x1": Conv(inner, 64, 1),
        "branch5x5_1": Conv(inner, 48, 1),
        "branch5x5_2": Conv(48, 64, 5, padding=2),
        "branch3x3dbl_1": Conv(inner, 64, 1),
        "branch3x3dbl_2": Conv(64, 96, 3, padding=1),
        "branch3x3dbl_3": Conv(96, 96, 3, padding=1),
        "branch_pool": Conv(inner, pooled, 1),
    }
    branches = (
        "branch1x1",
        "branch5x5_1 branch5x5_2",
        "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3",
        "pool branch_pool",
    )
    return Mixed(layers, branches, inner_mean)


def to_17() -> Mixed:
    """From 35×35 and 288 channels to 17×17 and 768."""
    layers = {
        "branch3x3": Conv(288, 384, 3, stride=2),
        "branch3x3dbl_1": Conv(288, 64, 1),
        "branch3x3dbl_2": Conv(64, 96, 3, padding=1),
        "branch3x3dbl_3": Conv(96, 96, 3, stride=2),
    }
    return Mixed(
        layers, ("branch3x3", "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3", "pool"), halving_max
    )


def block_17(narrow: int) -> Mixed:
    """At 17×17: 768 channels in and out, `narrow` between; 7×7 as 1×7 and 7×1."""
    wide, tall = {"size": (1, 7), "padding": (0, 3)}, {"size": (7, 1), "padding": (3, 0)}
    layers = {
        "branch1x1": Conv(768, 192, 1),
        "branch7x7_1": Conv(768, narrow, 1),
        "branch7x7_2": Conv(narrow, narrow, **wide),  # type: ignore[arg-type]
        "branch7x7_3": Conv(narrow, 192, **tall),  # type: ignore[arg-type]
        "branch7x7dbl_1": Conv(768, narrow, 1),
        "branch7x7dbl_2": Conv(narrow, narrow, **tall),  # type: ignore[arg-type]
        "branch7x7dbl_3": Conv(narrow, narrow, **wide),  # type: ignore[arg-type]
        "branch7x7dbl_4": Conv(narrow, narrow, **tall),  # type: ignore[arg-type]
        "branch7x7dbl_5": Conv(narrow, 192, **wide),  # type: ignore[arg-type]
        "branch_pool": Conv(768, 192, 1),
    }
    branches = (
        "branch1x1",
        "branch7x7_1 branch7x7_2 branch7x7_3",
        " ".join(f"branch7x7dbl_{i}" for i in range(1, 6)),
        "pool branch_pool",
    )
    return Mixed(layers, branches, inner_mean)


def to_8() -> Mixed:
    """From 17×17 and 768 channels to 8×8 and 1280."""
    layers = {
        "branch3x3_1": Conv(768, 192, 1),
        "branch3x3_2": Conv(192, 320, 3, stride=2),
        "branch7x7x3_1": Conv(768, 192, 1),
        "branch7x7x3_2": Conv(192, 192, (1, 7), padding=(0, 3)),
        "branch7x7x3_3": Conv(192, 192, (7, 1), padding=(3, 0)),
        "branch7x7x3_4": Conv(192, 192, 3, stride=2),
    }
    branches = (
        "branch3x3_1 branch3x3_2",
        "branch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4",
        "pool",
    )
    return Mixed(layers, branches, halving_max)


def block_8(inner: int, pool: Pool) -> Mixed:
    """At 8×8: 320 + 768 + 768 + 192 = 2048 channels out."""
    layers = {
        "branch1x1": Conv(inner, 320, 1),
        "branch3x3_1": Conv(inner, 384, 1),
        "branch3x3_2a": Conv(384, 384, (1, 3), padding=(0, 1)),
        "branch3x3_2b": Conv(384, 384, (3, 1), padding=(1, 0)),
        "branch3x3dbl_1": Conv(inner, 448, 1),
        "branch3x3dbl_2": Conv(448, 384, 3, padding=1),
        "branch3x3dbl_3a": Conv(384, 384, (1, 3), padding=(0, 1)),
        "branch3x3dbl_3b": Conv(384, 384, (3, 1), padding=(1, 0)),
        "branch_pool": Conv(inner, 192, 1),
    }
    branches = (
        "branch1x1",
        "branch3x3_1 branch3x3_2a/branch3x3_2b",
        "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3a/branch3x3dbl_3b",
        "pool branch_pool",
    )
    return Mixed(layers, branches, pool)


class Inception(nn.Module):
    """Pictures (N, 3, 299, 299), float in 0–255 → features (N, 2048), the mean over the last 8×8
    positions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3)
        for name, pooled, inner in (
            ("Mixed_5b", 32, 192),
            ("Mixed_5c", 64, 256),
            ("Mixed_5d", 64, 288),
        ):
            self.add_module(name, block_35(inner, pooled))
        self.Mixed_6a = to_17()
        for name, narrow in (
            ("Mixed_6b", 128),
            ("Mixed_6c", 160),
            ("Mixed_6d", 160),
            ("Mixed_6e", 192),
        ):
            self.add_module(name, block_17(narrow))
        self.Mixed_7a = to_8()
        self.Mixed_7b = block_8(1280, inner_mean)
        self.Mixed_7c = block_8(2048, same_max)

    def forward(self, images: Tensor) -> Tensor:
        # as the TensorFlow graph has it; pytorch-fid divides by 127.5 and subtracts 1
        x = (images - 128) / 128
        for name, layer in self.named_children():
            if name in ("Conv2d_3b_1x1", "Mixed_5b"):
                x = halving_max(x)
            x = layer(x)
        return adaptive_avg_pool2d(x, 1).flatten(1)


def load_inception(path: Path) -> Inception:
    """FID's network with the weights of a `.safetensors` file. Raises UserError for any other
    file.
    """
    if not path.is_file():
        raise UserError(
            f"there is no feature network {path}; give FID's Inception as .safetensors, or a hub "
            "id."
        )
    if path.suffix != ".safetensors":
        raise UserError(
            f"{path} may hold code, and feature networks are read from .safetensors only; save the "
            "state dict of pytorch-fid's Inception with safetensors.torch.save_file, or name a "
            "transformers vision model."
        )
    state = {k: v.float() for k, v in read_state_dict(path).items() if not k.startswith(_UNREAD)}
    with torch.device("meta"):
        net = Inception()

    # counters of training, which older files lack and nothing here reads
    counters = {key for key in net.state_dict() if key.endswith("num_batches_tracked")}
    state |= {key: torch.tensor(0) for key in counters}
    return load_strict(net, state, path).eval()  # type: ignore[return-value]
