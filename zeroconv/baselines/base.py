"""What every baseline of ControlNet has in common: one call, its own parameters only, a folder on
disk.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from zeroconv.backbones import TextStates, UNetBackbone
from zeroconv.control.net import Described
from zeroconv.errors import UserError
from zeroconv.files import atomic_folder
from zeroconv.jsonfile import to_json

# what a baseline makes of a hint, once a picture; each tensor has a row a picture
Embedding = tuple[Tensor, ...]
HINT_FORMS = ("unshuffle", "downsample")
WEIGHTS = "diffusion_pytorch_model.safetensors"
CLASS_NAME = "ZeroconvBaseline"
OLD_CLASS_NAME = "ZeroconvRival"  # in folders of older versions; `is_baseline` knows both

M = TypeVar("M", bound=nn.Module)


class Baseline(nn.Module, Described):
    """A way to make a frozen text-to-image model follow a hint that is not ControlNet's.

    Its parameters are what it trains and nothing else; the backbone it was made around is neither
    changed nor held as a submodule. Build one with `make_baseline`, read one with `load_baseline`.
    """

    kind: ClassVar[str]
    exact_start: ClassVar[bool] = True  # whether a new one gives exactly the frozen model's output
    config: dict[str, Any]  # {"kind": …, "options": …, "zeroconv": {"condition": …, "base": …}}

    def predict(
        self, backbone: UNetBackbone, z: Tensor, hint: Tensor, t: Tensor | int, text: TextStates
    ) -> Tensor:
        """z (N, C, H, W), hint (N, 3, 8H, 8W) in [0, 1], t (N,) or scalar → the output, ε or v, (N,
        C, H, W).
        """
        return self.predict_embedded(backbone, z, self.embed_hint(hint.to(self.dtype)), t, text)

    def embed_hint(self, hint: Tensor) -> Embedding:
        """What of the hint does not depend on the step, so that a picture needs it once; here the
        hint itself.
        """
        return (hint,)

    def predict_embedded(
        self,
        backbone: UNetBackbone,
        z: Tensor,
        embedding: Embedding,
        t: Tensor | int,
        text: TextStates,
    ) -> Tensor:
        """`predict` from `embed_hint` on."""
        raise NotImplementedError

    def save(self, folder: str | os.PathLike, dtype: torch.dtype | None = None) -> None:
        """Write config.json and the trained weights, all or none, in `dtype` (None: as they are).

        The folder may hold nothing but what zeroconv wrote there; raises UserError otherwise.
        """
        state = {
            key: value.detach().to("cpu", dtype).contiguous()
            for key, value in self.state_dict().items()
        }
        config = {"_class_name": CLASS_NAME, **self.config, **self.published_config()}
        with atomic_folder(folder) as temporary:
            text = to_json(config, indent=2, sort_keys=True) + "\n"
            (temporary / "config.json").write_text(text, encoding="utf-8")
            save_file(state, Path(temporary) / WEIGHTS, metadata={"format": "pt"})

    def published_config(self) -> dict[str, Any]:
        """What a folder says beside `config`, for `zeroconv convert` into a published layout."""
        return {}

    @property
    def has_residuals(self) -> bool:
        """It gives the whole output."""
        return False

    @property
    def hint_space(self) -> Literal["pixels", "latent"]:
        return "pixels"

    def trainable(self, frozen_copy: bool = False) -> Iterator[nn.Parameter]:
        """All of its parameters; there is no copy to freeze."""
        return self.parameters()

    @property
    def trained_parameters(self) -> int:
        """How many numbers it trains."""
        return sum(p.numel() for p in self.parameters())

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def networks(self) -> list[nn.Module]:
        """Itself, and the networks of frozen weights that it runs but does not hold as
        submodules.
        """
        kept = [
            value.unet if isinstance(value, UNetBackbone) else value
            for value in vars(self).values()
        ]
        return [self, *(value for value in kept if isinstance(value, nn.Module))]

    def _hide(self, name: str, value: Any) -> None:
        """Keep something that holds frozen modules without making them submodules of this one."""
        object.__setattr__(self, name, value)


def share(module: M) -> M:
    """Modules of their own around the very same parameters: changing which modules there are leaves
    `module` alone, and no weight is held twice.
    """
    return copy.deepcopy(
        module, {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    )


def adopt_trained(baseline: Baseline, network: nn.Module) -> None:
    """Make those parameters of `network` that train parameters of the baseline, under their names
    there.
    """
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            *path, last = name.split(".")
            parent: nn.Module = baseline
            for step in path:
                if step not in parent._modules:
                    parent.add_module(step, nn.Module())
                parent = cast(nn.Module, parent._modules[step])
            parent.register_parameter(last, parameter)


class HintChannels(nn.Module):
    """The hint as further input channels of a UNet: those columns of conv_in that read them, zero
    at first.

    A convolution of concatenated channels is the sum of two convolutions; this is the second one,
    so that the frozen first one stays as it is. hint (N, 3, 8H, 8W) → (N, C0, H, W), to be added
    after conv_in. How a picture becomes channels at the latent's size, with no autoencoder:
    "unshuffle" makes a channel of every pixel of a latent's square (3·8², as in T2I-Adapter's first
    layer), so nothing is lost; "downsample" takes the square's mean (as Stable Diffusion's depth
    and inpainting models do with their maps).
    """

    def __init__(self, out_channels: int, latent_scale: int, form: str = "unshuffle") -> None:
        super().__init__()
        if form not in HINT_FORMS:
            raise UserError(
                f"there is no hint form {form!r}; choose one of {', '.join(HINT_FORMS)}."
            )
        self.scale, self.form = latent_scale, form
        channels = 3 * latent_scale**2 if form == "unshuffle" else 3
        self.conv = nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)
        nn.init.zeros_(self.conv.weight)

    def forward(self, hint: Tensor) -> Tensor:
        return self.conv(to_channels(hint, self.scale, self.form))


def to_channels(hint: Tensor, scale: int, form: str = "unshuffle") -> Tensor:
    """(N, 3, sH, sW) → (N, 3s², H, W) or, downsampled, (N, 3, H, W)."""
    if form == "unshuffle":
        return nn.functional.pixel_unshuffle(hint, scale)
    return nn.functional.avg_pool2d(hint, scale)
