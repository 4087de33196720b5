"""What changes the base's attention during one batch: image prompts, references, and controls of
kind LLLite.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor

from zeroconv.adapters import References
from zeroconv.adapters.reference import Reference
from zeroconv.backbones import Backbone, TextStates, UNetBackbone
from zeroconv.control.net import changes_attention, is_additive
from zeroconv.errors import UserError
from zeroconv.generation import arguments
from zeroconv.generation.adapters import ImagePrompt, ReferencePicture, fitted, opened
from zeroconv.generation.hints import mask_tensor
from zeroconv.generation.image.given import ImageInputs
from zeroconv.generation.image.latents import channels_beside
from zeroconv.layers.attention import Change, Switch, attached


def inside(start: float, end: float, step: int, steps: int) -> bool:
    """Whether a step is in a window, in shares of the schedule; step i covers i / steps to (i + 1)
    / steps, as in diffusers.
    """
    return not (step / steps < start or (step + 1) / steps > end)


def note_idle(windows: Iterable[tuple[float, float]], steps: int) -> None:
    """A note on windows (start, end) that hold no step of `steps`."""
    for start, end in dict.fromkeys(windows):
        if not any(inside(start, end, step, steps) for step in range(steps)):
            warnings.warn(
                f"no step of {steps} is within the window from {start:g} to {end:g}, so what has "
                "it does nothing; widen it, or take more steps.",
                stacklevel=2,
            )


@dataclass
class Acting:
    """An adapter's changes, and its factor at a step of so many; 0 is not at all. window: of the
    shares of the schedule in which it acts.
    """

    switch: Switch
    changes: dict[str, Change]
    factor: Callable[[int, int], float]
    window: tuple[float, float] = (0.0, 1.0)


class Adapting:
    """All that changes the attention of `backbone` in one batch. Nothing does between batches."""

    def __init__(
        self, backbone: UNetBackbone, acting: Sequence[Acting], references: Sequence[Reference]
    ) -> None:
        self.backbone, self.acting = backbone, list(acting)
        self.references = References(backbone, references) if references else None

    @property
    def windows(self) -> list[tuple[float, float]]:
        """Of all that acts, in shares of the schedule."""
        references = self.references.references if self.references is not None else []
        return [each.window for each in self.acting] + [(r.start, r.end) for r in references]

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Inside, `step` decides what acts; afterwards the base is as it was."""
        changes = [each.changes for each in self.acting]
        changes += [self.references.changes] if self.references is not None else []
        with attached(self.backbone.unet, changes):
            yield

    def step(self, step: int, steps: int, t: Tensor, text: TextStates) -> None:
        """Before each call of the base at timestep t, with text states of all its rows."""
        for each in self.acting:
            each.switch.on = False  # a reference is seen by the base alone
        if self.references is not None:
            now = [r for r in self.references.references if inside(r.start, r.end, step, steps)]
            self.references.record(self.backbone, now, t, text)
        for each in self.acting:
            each.switch.factor = each.factor(step, steps)
            each.switch.on = each.switch.factor != 0


class Adapters:
    """The image prompts and references of a call, their pictures opened and embedded; by `at` made
    ready for one size of picture.
    """

    size = (0, 0)  # height and width
    latents: Sequence[Tensor] = ()
    regions: Sequence[Tensor | None] = ()

    def __init__(
        self,
        adapters: Sequence[ImagePrompt | ReferencePicture],
        backbone: Backbone,
        seeds: Sequence[int],
        count: int,
        images: ImageInputs | None = None,
    ) -> None:
        """seeds: one a picture. images: whose boxes regions are cut to."""
        self.backbone, self.count, self.images = cast(UNetBackbone, backbone), count, images
        self.seeds = seeds
        self.prompts = [each for each in adapters if isinstance(each, ImagePrompt)]
        self.references = [each for each in adapters if isinstance(each, ReferencePicture)]
        if self.prompts or self.references:
            _check_no_edits(self.backbone)
        self.embedded = [self._embedded(each) for each in self.prompts]
        self.opened = [
            opened(each.picture, len(seeds), count, "reference") for each in self.references
        ]

    def at(self, size: tuple[int, int]) -> Adapters:
        """The same for pictures of a size (height, width)."""
        ready = copy.copy(self)
        ready.size = size
        ready.latents = [ready._latents(each) for each in self.opened]
        ready.regions = [ready._region(each) for each in self.prompts]
        return ready

    def of(
        self, part: slice, guides: Sequence[Any], shape: Sequence[int]
    ) -> tuple[list[Any], Adapting | None]:
        """For the pictures of a batch: the guides that add residuals, and what changes the
        attention, None where nothing does. shape: of the latents, (C, h, w).
        """
        lllites = [guide for guide in guides if changes_attention(guide.net)]
        others = [guide for guide in guides if not changes_attention(guide.net)]
        if not lllites and not self.prompts and not self.references:
            return others, None
        replacing = [guide.net.config["kind"] for guide in others if not is_additive(guide.net)]
        if replacing:
            raise UserError(
                f"a network of kind {replacing[0]} replaces the base's output, so no adapter of "
                "the base's attention can act beside it; give one of them."
            )
        size, pictures = (shape[1], shape[2]), len(self.seeds[part])
        acting = [self._of_guide(guide, pictures, size) for guide in lllites]
        acting += [self._of_prompt(i, part, pictures, size) for i in range(len(self.prompts))]
        references = [self._of_reference(i, part) for i in range(len(self.references))]
        return others, Adapting(self.backbone, acting, references)

    def _of_guide(self, guide: Any, pictures: int, size: tuple[int, int]) -> Acting:
        mask = None if guide.masks is None else guide.masks[0].to(self.backbone.device)
        switch = Switch(False, 0.0, guide.uncond, pictures, guide.pictures, mask, size)

        def factor(step: int, steps: int) -> float:
            return guide.scale * guide.factor(step, steps) if guide.acts(step, steps) else 0.0

        return Acting(switch, guide.net.changes(guide.embedding, switch), factor)

    def _of_prompt(self, i: int, part: slice, pictures: int, size: tuple[int, int]) -> Acting:
        prompt, (tokens, nothing) = self.prompts[i], self.embedded[i]
        scales: Tensor | None = None
        scale, region = prompt.scale, self.regions[i]
        if region is not None and len(region) > 1:
            region = region[part]
        if isinstance(scale, list | tuple):
            each = arguments.per_picture(list(scale), len(self.seeds), self.count, "scale")
            scales, scale = torch.tensor(each[part], dtype=torch.float32), 1.0
        switch = Switch(False, 0.0, True, pictures, scales, region, size)
        changes = prompt.adapter.changes(tokens[part], nothing[part], switch)

        def factor(step: int, steps: int) -> float:
            return float(scale) if inside(prompt.start, prompt.end, step, steps) else 0.0  # type: ignore[arg-type]

        return Acting(switch, changes, factor, (prompt.start, prompt.end))

    def _of_reference(self, i: int, part: slice) -> Reference:
        given = self.references[i]
        noise = [torch.Generator().manual_seed(_other(seed, i)) for seed in self.seeds[part]]
        latents, fidelity = self.latents[i][part], given.fidelity
        if hasattr(self.backbone.encoder, "add_embedding"):
            fidelity = fidelity**3  # as A1111 has it for SDXL
        return Reference(latents, fidelity, given.scale, noise, given.start, given.end)

    def _embedded(self, prompt: ImagePrompt) -> tuple[Tensor, Tensor]:
        """Tokens of all pictures, and of nothing; each different picture is embedded once."""
        each = opened(prompt.picture, len(self.seeds), self.count, "image prompt")
        different = {id(picture): picture for picture in each}
        numbers = {key: row for row, key in enumerate(different)}
        rows = [numbers[id(picture)] for picture in each]
        tokens, nothing = prompt.adapter.embed(list(different.values()))
        return tokens[rows], nothing[rows]

    def _latents(self, each: Sequence[Image.Image]) -> Tensor:
        """The means of the latents of a reference, one row a picture."""
        different = {id(picture): picture for picture in each}
        numbers = {key: row for row, key in enumerate(different)}
        size = self.size[1], self.size[0]
        made = [_encoded(self.backbone, fitted(p, size)) for p in different.values()]
        return torch.cat(made)[[numbers[id(picture)] for picture in each]]

    def _region(self, prompt: ImagePrompt) -> Tensor | None:
        """Where it acts, (1 or N, 1, H, W), cut to the boxes that are generated."""
        if prompt.region is None:
            return None
        given = [None] * len(self.seeds) if self.images is None else self.images.given
        cuts: list[Any] = [
            None if one is None or one.box is None else (one.picture.size, one.box) for one in given
        ]
        size = self.size[1], self.size[0]
        known = {
            cut: mask_tensor(prompt.region, size, cut, "region") for cut in dict.fromkeys(cuts)
        }
        if len(known) == 1:
            return known[cuts[0]]
        return torch.cat([cast(Tensor, known[cut]) for cut in cuts])


def _check_no_edits(backbone: UNetBackbone) -> None:
    """Raise UserError for a base that edits pictures, whose guidance has three parts."""
    if channels_beside(backbone) == backbone.latent_channels:
        raise UserError(
            f"{backbone.name} edits a picture (InstructPix2Pix), which image prompts and "
            "references do not work with; use the base it was made from."
        )


def _encoded(backbone: UNetBackbone, picture: Image.Image) -> Tensor:
    """A picture → the mean of its latents, (1, C, h, w), float32."""
    from zeroconv import pictures

    pixels = torch.from_numpy(pictures.to_numbers(picture))[None] * 2 - 1
    moments = backbone.encode_image(pixels.to(backbone.device, backbone.dtype))
    return backbone.latents_from_moments(moments, sample=False).float()


def _other(seed: int, number: int) -> int:
    """A seed of noise that is none of the pictures' own (Knuth's multiplier for 64 bits)."""
    return ((seed + number + 1) * 6364136223846793005) % 2**63
