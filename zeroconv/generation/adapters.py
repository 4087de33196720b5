"""`ImagePrompt` and `ReferencePicture`: a picture in place of words, or to be like, and how
strongly, when and where.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from zeroconv import pictures
from zeroconv.adapters import IPAdapter
from zeroconv.backbones import Backbone, UNetBackbone
from zeroconv.errors import UserError
from zeroconv.generation import arguments


@dataclass
class ImagePrompt:
    """An IP-Adapter and the picture it reads.

    picture: one for all, or a list of one a prompt or one a generated picture; `pictures.load` says
    as what. scale: λ of the method, 1 as trained, one number, or one a prompt or picture. start,
    end: the window in which it acts, in shares of the schedule. region: where it acts, as a
    control's.
    """

    adapter: IPAdapter
    picture: Any
    scale: float | Sequence[float] = 1.0
    start: float = 0.0
    end: float = 1.0
    region: Any = None


@dataclass
class ReferencePicture:
    """A picture to be like, by the base's own attention (A1111's reference_only).

    picture, start, end: as those of `ImagePrompt`. fidelity in [0, 1], A1111's style fidelity: at 1
    the unconditional half of guidance does not see the picture, at 0 it sees it too. scale in [0,
    1]: the share of the attentions that see it.
    """

    picture: Any
    fidelity: float = 0.5
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0


def check_adapters(adapters: Any, backbone: Backbone) -> list[ImagePrompt | ReferencePicture]:
    """The adapters as a list. Raises TypeError or UserError for whatever is wrong with one, apart
    from its pictures.
    """
    if not isinstance(adapters, list | tuple):
        raise arguments.wrong_type("adapters", adapters, "a list of zeroconv.ImagePrompt(…)")
    for i, adapter in enumerate(adapters):
        _check_adapter(adapter, f"adapters[{i}]", backbone)
    return list(adapters)


def _check_adapter(adapter: Any, name: str, backbone: Backbone) -> None:
    if not isinstance(adapter, ImagePrompt | ReferencePicture):
        accepted = "an ImagePrompt(adapter, picture) or a ReferencePicture(picture)"
        raise arguments.wrong_type(name, adapter, accepted)
    if not isinstance(backbone, UNetBackbone):
        raise UserError(
            f"{backbone.name} is no UNet; image prompts and references work with Stable Diffusion "
            "1.x, 2.x and XL."
        )
    if isinstance(adapter.picture, list | tuple) and not adapter.picture:
        raise UserError(f"{name}.picture is an empty list; give one, or one a prompt or picture.")
    arguments.number(f"{name}.start", adapter.start, 0, 1, "a share of the steps")
    arguments.number(f"{name}.end", adapter.end, 0, 1, "a share of the steps")
    if not adapter.start < adapter.end:
        raise UserError(
            f"{name} acts from {adapter.start} to {adapter.end}; 0 ≤ start < end ≤ 1 is needed."
        )
    if isinstance(adapter, ReferencePicture):
        what = "a share of the attentions that see the reference"
        arguments.number(f"{name}.scale", adapter.scale, 0, 1, what)
        arguments.number(f"{name}.fidelity", adapter.fidelity, 0, 1, "A1111's style fidelity")
        return
    if not isinstance(adapter.adapter, IPAdapter):
        raise arguments.wrong_type(f"{name}.adapter", adapter.adapter, "an IPAdapter.load(…)")
    given: Any = adapter.scale
    for scale in given if isinstance(given, list | tuple) else [given]:
        limit = arguments.STRONGEST
        arguments.number(f"{name}.scale", scale, -limit, limit, "1 for the adapter as trained")


def opened(picture: Any, total: int, count: int, what: str) -> list[Image.Image]:
    """One RGB picture for each that is made; equal ones are the same object."""
    known: dict[int, Image.Image] = {}
    each = arguments.per_picture(picture, total, count, what)
    for one in each:
        if id(one) not in known:
            named = isinstance(one, str) or hasattr(one, "__fspath__")
            known[id(one)] = pictures.open_picture(one, None if named else f"the {what}")
    return [known[id(one)] for one in each]


def fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A reference at `size` (width, height): scaled until it covers it, the overhang cut, with a
    note.
    """
    if picture.size == size:
        return picture
    fit = pictures.fit_into(picture.size, size, "crop")
    scaled = picture.resize(fit.size, Image.Resampling.LANCZOS, box=fit.box)
    left, top = (-side for side in fit.corner)
    warnings.warn(
        f"the reference is {picture.width}×{picture.height} pixels and was scaled to "
        f"{size[0]}×{size[1]}, its overhang cut.",
        stacklevel=2,
    )
    return scaled.crop((left, top, left + size[0], top + size[1]))
