"""ControlNet-LLLite (kohya-ss 2023): beside each projection of the attention, a small network that
reads its input and the hint and adds to that input.

x' = x + s · up(relu(mid([c ‖ relu(down(x))]))), with c = conditioning1(2 hint − 1), a few strided
convolutions down to the attention's own grid, and s the scale; the projection then reads x'.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zeroconv.backbones import TextStates, UNetBackbone
from zeroconv.baselines.base import Baseline, Embedding
from zeroconv.checkpoints.controls.lllite import lllite_names, split_modules
from zeroconv.checkpoints.strict import check_strict
from zeroconv.errors import UserError
from zeroconv.layers.attention import Change, Switch, attached, attentions, repeated

# strides of the hint's convolutions by the attention's grid in pixels; kohya's depths 1 to 3 are
# the second to fourth
KERNELS = {4: (4,), 8: (4, 2), 16: (4, 4), 32: (4, 4, 2), 64: (4, 4, 4), 128: (4, 4, 4, 2)}
_PARTS = ("conditioning1.0.weight", "down.0.weight")  # that tell a module's sizes


class LLLiteModule(nn.Module):
    """What belongs to one projection, under kohya's names. Its last layer starts at zero."""

    def __init__(self, width: int, kernels: Sequence[int], cond_dim: int, mlp_dim: int) -> None:
        super().__init__()
        widths = [3, *[cond_dim // 2] * (len(kernels) - 1), cond_dim]
        layers: list[nn.Module] = []
        for i, kernel in enumerate(kernels):
            layers += [nn.ReLU()] if i else []
            layers.append(nn.Conv2d(widths[i], widths[i + 1], kernel, stride=kernel))
        self.stride = math.prod(kernels)
        self.conditioning1 = nn.Sequential(*layers)
        self.down = nn.Sequential(nn.Linear(width, mlp_dim), nn.ReLU())
        self.mid = nn.Sequential(nn.Linear(mlp_dim + cond_dim, mlp_dim), nn.ReLU())
        self.up = nn.Sequential(nn.Linear(mlp_dim, width))
        for parameter in self.up.parameters():
            nn.init.zeros_(parameter)

    def embed(self, hint: Tensor) -> Tensor:
        """A hint (N, 3, H, W) in [0, 1] → (N, L, cond_dim), L cells of the attention's grid. A
        side that ends within a cell is continued by its border, as the UNet's grid is rounded up.
        """
        height, width = hint.shape[2:]
        beyond = (0, -width % self.stride, 0, -height % self.stride)
        hint = (
            nn.functional.pad(2 * hint - 1, beyond, mode="replicate")
            if any(beyond)
            else (2 * hint - 1)
        )
        return self.conditioning1(hint).flatten(2).transpose(1, 2)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """x (N, L, C) and `embed`'s (N or 1, L, cond_dim) → what is added to x."""
        embedded = embedded.expand(len(x), -1, -1)
        return self.up(self.mid(torch.cat([embedded, self.down(x)], dim=2)))


class LLLite(Baseline):
    """ControlNet-LLLite. Its file is kohya's, so other programs read what is trained here.

    cond_dim, mlp_dim: channels of the embedded hint and of the small network, 32 and 64 in the
    published ones. As there, a new one acts on the encoder and the middle: queries, keys and values
    over the picture, and queries over the text.
    """

    kind = "lllite"
    _targets: dict[str, tuple[str, str]]

    def __init__(self, backbone: UNetBackbone, *, cond_dim: int = 32, mlp_dim: int = 64) -> None:
        super().__init__()
        if cond_dim < 2 or cond_dim % 2 or mlp_dim < 1:
            raise UserError(
                f"cond_dim is {cond_dim} and mlp_dim {mlp_dim}; cond_dim must be an even number "
                "from 2 on, mlp_dim at least 1."
            )
        layers, targets = attentions(backbone.unet), _targets(backbone)
        self._hide("_targets", {})
        for name, (attention, projection) in targets.items():
            cell = backbone.latent_scale * level_scale(backbone, attention)
            over_text = attention.endswith("attn2") and projection != "to_q"
            if name in self._targets or attention.startswith("up_blocks") or over_text:
                continue
            if cell not in KERNELS or (attention, projection) in self._targets.values():
                continue
            width = getattr(layers[attention], projection).in_features
            self.add_module(name, LLLiteModule(width, KERNELS[cell], cond_dim, mlp_dim))
            self._targets[name] = (attention, projection)
        if not self._targets:
            raise UserError(
                f"{backbone.name} has no attention before its decoder that an LLLite can act on."
            )

    @classmethod
    def from_state(
        cls, state: Mapping[str, Tensor], backbone: UNetBackbone, where: object
    ) -> LLLite:
        """A network with the weights of a file, in their dtype; its modules are those of the file.
        Raises UserError, also where they do not fit the base.
        """
        net, targets = cls.__new__(cls), _targets(backbone)
        Baseline.__init__(net)
        net._hide("_targets", {})
        layers, modules = attentions(backbone.unet), split_modules(state, where)
        for name, tensors in modules.items():
            if name not in targets or any(part not in tensors for part in _PARTS):
                raise UserError(
                    f"{where} has {name[:100]}, which {backbone.name} has no projection for; it "
                    "was made for another base, or changes more than attention."
                )
            attention, projection = targets[name]
            width = getattr(layers[attention], projection).in_features
            module = _sized(tensors, width)
            check_strict(module.state_dict(), tensors, f"{where}: {name}")
            module.load_state_dict(tensors)
            module.to(tensors[_PARTS[1]].dtype)
            _check_grid(module, backbone, attention, f"{where}: {name}")
            net.add_module(name, module)
            net._targets[name] = (attention, projection)
        options = {"cond_dim": module.conditioning1[-1].out_channels}
        options["mlp_dim"] = module.down[0].out_features
        ours = {"condition": None, "base": backbone.name}
        net.config = {"kind": cls.kind, "options": options, "zeroconv": ours}
        return net

    def embed_hint(self, hint: Tensor) -> Embedding:
        """One tensor (N, L, cond_dim) a module."""
        return tuple(module.embed(hint) for module in self._modules_of())

    def predict_embedded(
        self,
        backbone: UNetBackbone,
        z: Tensor,
        embedding: Embedding,
        t: Tensor | int,
        text: TextStates,
    ) -> Tensor:
        with attached(backbone.unet, [self.changes(embedding, Switch())]):
            return backbone.predict(z, t, text)

    def changes(self, embedding: Embedding, switch: Switch) -> dict[str, Change]:
        """What it does to each attention, for `zeroconv.layers.attention.attached`."""
        parts: dict[str, dict[str, tuple[LLLiteModule, Tensor]]] = {}
        for target, module, embedded in zip(
            self._targets.values(), self._modules_of(), embedding, strict=True
        ):
            parts.setdefault(target[0], {})[target[1]] = (module, embedded)
        return {name: _Added(switch, projections) for name, projections in parts.items()}

    def _modules_of(self) -> Iterator[Any]:
        return (self.get_submodule(name) for name in self._targets)


class _Added(Change):
    """The sums before the projections of one attention."""

    def __init__(self, switch: Switch, projections: dict[str, tuple[LLLiteModule, Tensor]]) -> None:
        super().__init__(switch)
        self.projections = projections

    def before(self, name: str, x: Tensor) -> Tensor:
        if name not in self.projections:
            return x
        module, embedded = self.projections[name]
        rows = self.switch.rows(x)
        part = x[rows]
        added = self.switch.weights(part) * module(part, repeated(embedded, len(part)))
        return torch.cat([x[: len(x) - len(part)], part + added])


def level_scale(backbone: UNetBackbone, attention: str) -> int:
    """The latent's size over the size of an attention's grid."""
    deepest = len(backbone.unet.config.block_out_channels) - 1
    side, _, rest = attention.partition(".")
    if side == "mid_block":
        return 2**deepest
    block = int(rest.partition(".")[0])
    return 2 ** (block if side == "down_blocks" else deepest - block)


def _targets(backbone: UNetBackbone) -> dict[str, tuple[str, str]]:
    unet = backbone.unet
    return lllite_names(unet.state_dict(), attentions(unet))


def _sized(tensors: Mapping[str, Tensor], width: int) -> LLLiteModule:
    """An empty module of the sizes that a file's tensors have."""
    kernels, i = [], 0
    while (weight := tensors.get(f"conditioning1.{i}.weight")) is not None and weight.ndim == 4:
        kernels.append(weight.shape[-1])
        last, i = weight, i + 2
    return LLLiteModule(width, kernels, last.shape[0], tensors["down.0.weight"].shape[0])


def _check_grid(
    module: LLLiteModule, backbone: UNetBackbone, attention: str, where: object
) -> None:
    cell = backbone.latent_scale * level_scale(backbone, attention)
    if module.stride != cell:
        raise UserError(
            f"{where} sees the hint in cells of {module.stride} pixels, but this attention of "
            f"{backbone.name} has cells of {cell}; it was made for another base."
        )
