"""Controls made ready for pictures of one size: hints as tensors, scales, regions, and the guides
of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from zeroconv.backbones import Backbone
from zeroconv.control import Net, ResidualNet, compose, is_additive
from zeroconv.errors import UserError
from zeroconv.generation import arguments
from zeroconv.generation import guidance as guidance_rules
from zeroconv.generation.control import Control
from zeroconv.generation.hints import WITH_PICTURE, hint_tensor, mask_tensor
from zeroconv.generation.image.given import ImageInputs
from zeroconv.generation.sampling import Guide


class Guiding:
    """The controls of one call at one size of picture."""

    def __init__(
        self,
        backbone: Backbone,
        controls: Sequence[Control],
        guidance: str,
        connection_scales: Sequence[float] | str | None,
        total: int,
        count: int,
        size: tuple[int, int],
        images: ImageInputs | None = None,
    ) -> None:
        """size: height and width. images: whose boxes hints and regions are cut to."""
        self.backbone, self.controls, self.guidance = backbone, controls, guidance
        self.high, self.wide = size
        self.images = images
        self.hints = [self._hints(control, total, count) for control in controls]
        self.scales = [_scales(control, guidance, connection_scales) for control in controls]
        self.pictures = [_picture_scales(control, total, count) for control in controls]
        self.regions = [self._regions(control, total) for control in controls]

    def guides(self, part: slice) -> list[Guide]:
        """Of some pictures; controls that do nothing for them are left out."""
        scale = self.backbone.latent_scale
        size = self.high // scale, self.wide // scale
        guides = []
        columns = (self.controls, self.hints, self.scales, self.pictures, self.regions)
        for c, hints, scales, pictures, region in zip(*columns, strict=True):
            if not any(scales) or not bool(c.scale if pictures is None else pictures[part].any()):
                continue
            masks = None
            if region is not None:
                region = region if len(region) == 1 else region[part]
                masks = _masks(c.net, region, size)
            guides.append(
                Guide(
                    c.net,
                    _embed(c.net, hints[part], self.backbone),
                    scales,
                    c.start,
                    c.end,
                    _controls_uncond(c, self.guidance),
                    c.curve,
                    None if pictures is None else pictures[part],
                    masks,
                    1.0 if pictures is not None else float(cast(float, c.scale)),
                )
            )
        return guides

    def _hints(self, control: Control, total: int, count: int) -> list[Tensor]:
        """One hint a picture, (3, H, W) in [0, 1]; equal hints are the same tensor."""
        if control.hint is None:
            return self._inpaint_hints(control, total)
        hints = arguments.per_picture(control.hint, total, count, "hint")
        condition, channels = control.net.condition, getattr(control.net, "hint_channels", 3)
        known: dict[tuple, Tensor] = {}
        keys = [(id(hint), self._cut(number)) for number, hint in enumerate(hints)]
        for key, hint in zip(keys, hints, strict=True):
            if key not in known:
                size = (self.wide, self.high)
                known[key] = hint_tensor(hint, size, condition, channels, control.resize, key[1])
        made = [known[key] for key in keys]
        return self._beside_pictures(made) if channels == WITH_PICTURE else made

    def _beside_pictures(self, hints: list[Tensor]) -> list[Tensor]:
        """Hints of three channels and, beside each, the given picture, −1 where it is masked."""
        if self.images is None or not self.images.options.masks:
            return hints
        known: dict[tuple[int, int], Tensor] = {}
        keys = [(id(h), id(one)) for h, one in zip(hints, self.images.given, strict=True)]
        for number, (key, hint) in enumerate(zip(keys, hints, strict=True)):
            if key not in known:
                beside = self.images.inpaint_hint(number, (self.high, self.wide))
                known[key] = torch.cat([hint, beside]) if len(hint) == 3 else hint
        return [known[key] for key in keys]

    def _inpaint_hints(self, control: Control, total: int) -> list[Tensor]:
        """Of the given pictures and their masks."""
        if control.net.condition != "inpaint" or self.images is None:
            raise UserError(
                "a control has no hint; only an inpaint control does without, where image and mask "
                "are given."
            )
        known: dict[int, Tensor] = {}
        for number, one in enumerate(self.images.given):
            if id(one) not in known:
                known[id(one)] = self.images.inpaint_hint(number, (self.high, self.wide))
        return [known[id(one)] for one in self.images.given]

    def _regions(self, control: Control, total: int) -> Tensor | None:
        """Where it acts, (1, 1, H, W) or one a picture; None: everywhere."""
        if control.region is None:
            return None
        cuts = [self._cut(number) for number in range(total)]
        size = (self.wide, self.high)
        known = {
            cut: mask_tensor(control.region, size, cut, name="region")
            for cut in dict.fromkeys(cuts)
        }
        if len(known) == 1:
            return known[cuts[0]]
        return torch.cat([cast(Tensor, known[cut]) for cut in cuts])

    def _cut(self, number: int) -> tuple | None:
        """The size (width, height) of a given picture and the box of it that is generated."""
        one = None if self.images is None else self.images.given[number]
        return None if one is None or one.box is None else (one.picture.size, one.box)


def attach(backbone: Backbone, controls: Sequence[Control]) -> None:
    """Where the base is moved when it is needed, its controls are too."""
    offload = getattr(backbone, "offload", None)
    if offload is not None:
        for control in controls:
            offload.attach(control.net.networks())


def _masks(net: Net, region: Tensor, size: tuple[int, int]) -> list[Tensor]:
    """A region (1 or N, 1, H, W) at each connection of a control; as it is where it has none."""
    if not is_additive(net):
        return [region]
    return compose.masks_at(region, cast(ResidualNet, net).connections, size)


def _embed(net: Net, hints: list[Tensor], backbone: Backbone) -> Tensor | tuple[Tensor, ...]:
    """Hint embeddings (N, C0, h, w), of a baseline a tuple of its own; each different hint is
    embedded once.
    """
    different = {id(hint): hint for hint in hints}
    pictures = torch.stack(list(different.values())).to(backbone.device, net.dtype)
    if net.hint_space == "latent":
        pictures = cast(ResidualNet, net).hint_latents(backbone, pictures)
    embedded = net.embed_hint(pictures)
    numbers = {key: row for row, key in enumerate(different)}
    rows = [numbers[id(hint)] for hint in hints]
    return tuple(part[rows] for part in embedded) if isinstance(embedded, tuple) else embedded[rows]


def _scales(control: Control, guidance: str, common: Sequence[float] | str | None) -> list[float]:
    """One number a connection, without the control's own scale."""
    if not is_additive(control.net):
        return [1.0]
    connections = cast(ResidualNet, control.net).connections
    return guidance_rules.chosen_scales(
        control.connection_scales, common, control.mode, guidance, connections
    )


def _picture_scales(control: Control, total: int, count: int) -> Tensor | None:
    """One scale a picture (N,), or None where one number is for all."""
    if isinstance(control.scale, int | float):
        return None
    scales = arguments.per_picture(list(control.scale), total, count, "scale")
    return torch.tensor([float(scale) for scale in scales])


def _controls_uncond(control: Control, guidance: str) -> bool:
    """Whether the unconditional half of guidance gets this control's residuals.

    Those of a pooled one it never gets (shuffle).
    """
    if control.conditional_only or getattr(control.net, "pool", False):
        return False
    by_mode = control.mode is not None and is_additive(control.net)
    return guidance_rules.controls_uncond(control.mode if by_mode else guidance)  # type: ignore[arg-type]
