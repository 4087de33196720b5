"""The work of `generate`, once all of it is checked: batch by batch, one pass or two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from zeroconv.backbones import Backbone, TextStates
from zeroconv.errors import UserError
from zeroconv.generation.adapting import Adapters
from zeroconv.generation.control import Control
from zeroconv.generation.engines import engine_for
from zeroconv.generation.guiding import Guiding
from zeroconv.generation.image.given import ImageInputs
from zeroconv.generation.image.hires import Hires
from zeroconv.generation.image.latents import Start, channels_beside, inpainting_channels
from zeroconv.generation.prompts import TextInputs
from zeroconv.generation.samplers.noise import Source, batch_latents, initial_latents, sources
from zeroconv.generation.samplers.stepping import check_sampling, note_late_start, scheduler_for
from zeroconv.generation.sampling import denoise
from zeroconv.generation.saving import EXACT, Fast, decoder_of
from zeroconv.generation.sizes import Sizes
from zeroconv.stopping import stop_if_asked


@dataclass(frozen=True)
class Stepping:
    """How steps are taken; see `generate`."""

    scheduler: Any
    schedule: str | None
    eta: float | None
    guidance_rescale: float
    noise: str
    steps: int
    fast: Fast = EXACT
    engine: str = "torch"

    def __post_init__(self) -> None:
        check_sampling(self.scheduler, self.schedule, self.eta, self.guidance_rescale, self.noise)

    def make(self, backbone: Backbone, steps: int) -> Any:
        """A scheduler that starts anew. Raises UserError for what cannot be."""
        return scheduler_for(self.scheduler, backbone, steps, self.schedule, self.eta, self.noise)

    def check(self, backbone: Backbone, second: Hires, from_noise: bool) -> None:
        """Raise UserError where a pass cannot have its scheduler. from_noise: the first begins at
        pure noise, and a note says where its first step is far from there.
        """
        first = self.make(backbone, self.steps)
        if from_noise:
            note_late_start(first, backbone)
        if second.factor is not None and second.steps:
            self.make(backbone, second.steps)


@dataclass(frozen=True)
class Outputs:
    """Who is told of what, and what pictures are handed out as; see `generate`."""

    callback: Callable[[int, int, Tensor], None] | None
    finished: Callable[[int, Any], None] | None
    output: str


@dataclass
class Plan:
    """One pass: its size (height, width) in pixels, and what depends on it."""

    size: tuple[int, int]
    shape: tuple[int, int, int]  # (C, h, w)
    sizes: Sizes
    steps: int
    guiding: Guiding
    adapters: Adapters


class Job:
    """One call of `generate`."""

    def __init__(
        self,
        backbone: Backbone,
        words: TextInputs,
        controls: Sequence[Control],
        seeds: Sequence[int],
        stepping: Stepping,
        cfg: float,
        guidance: str,
        connection_scales: Sequence[float] | str | None,
        images: ImageInputs | None,
        adapters: Adapters,
        true_cfg: float = 1.0,
    ) -> None:
        self.adapters = adapters
        # of the two evaluations of a step; a distilled base reads the other as its input
        self.halves = true_cfg if backbone.reads_guidance else cfg
        self.backbone, self.words, self.controls, self.seeds = backbone, words, controls, seeds
        self.stepping, self.cfg, self.guidance = stepping, cfg, guidance
        self.connection_scales, self.images = connection_scales, images
        self.decoder = decoder_of(stepping.fast, backbone)
        self.edits = channels_beside(backbone) == backbone.latent_channels
        if self.edits and images is None:
            raise UserError(
                f"{backbone.name} edits a picture (InstructPix2Pix) and was given none; give image."
            )

    def plan(
        self, size: tuple[int, int], sizes: Sizes, steps: int, level: str | None = None
    ) -> Plan:
        """The pass at a size (height, width). level: "low" or "high" where there are two, which
        controls may leave out. Raises UserError for hints that are no pictures.
        """
        scale = self.backbone.latent_scale
        shape = (self.backbone.latent_channels, size[0] // scale, size[1] // scale)
        controls = [c for c in self.controls if level is None or c.passes in ("both", level)]
        guiding = Guiding(
            self.backbone, controls, self.guidance, self.connection_scales, self.words.total,
            self.words.count, size, self.images,
        )  # fmt: skip
        return Plan(size, shape, sizes, steps, guiding, self.adapters.at(size))

    def run(
        self,
        first: Plan,
        second: Plan | None,
        hires: Hires,
        latents: Tensor | None,
        batch_size: int,
        outputs: Outputs,
    ) -> list:
        """All pictures. latents: as `generate` takes them."""
        shape = (self.words.total, *first.shape)
        if latents is not None and tuple(latents.shape) != shape:
            raise UserError(f"latents have shape {tuple(latents.shape)}, but {shape} is needed.")
        if self.stepping.noise == "batch" and latents is None:
            latents = batch_latents(self.seeds, first.shape)
        images: list = []
        with torch.inference_mode():
            for part in self.words.batches(batch_size):
                drawn = sources(self.seeds[part], self.stepping.noise, first.shape)
                given = None if latents is None else latents[part]
                z = self._denoised(
                    part, first, self._start(part, first, drawn, given), drawn, outputs
                )
                if second is not None:
                    start = self._second_start(part, second, hires, z, drawn)
                    z = self._denoised(part, second, start, drawn, outputs)
                images += self._finish(part, z, outputs)
        return images

    def _denoised(
        self, part: slice, plan: Plan, start: Start, drawn: list[Source], outputs: Outputs
    ) -> Tensor:
        """Latents (N, C, h, w) of some pictures after a pass."""
        cond, uncond = self._states(part, plan, start)
        guides, adapting = plan.adapters.of(part, plan.guiding.guides(part), plan.shape)
        if adapting is not None and uncond is cond:
            uncond = cond[:]  # the halves see other pictures, so nothing of them is shared
        engine = engine_for(
            self.stepping.engine,
            self.backbone,
            guides,
            start.edits,
            adapting is not None,
            merging=self.stepping.fast.merge > 0,
        )
        return denoise(
            self.backbone, start.to(self.backbone.device), cond, uncond, guides,
            self.stepping.make(self.backbone, plan.steps), plan.steps, self.halves, drawn,
            outputs.callback, self.stepping.eta, self.stepping.guidance_rescale, adapting,
            self.stepping.fast, engine,
        )  # fmt: skip

    def _states(
        self, part: slice, plan: Plan, start: Start
    ) -> tuple[TextStates, TextStates | None]:
        """An editing base needs the negative's states for guidance by its picture too."""
        pictured = start.edits and start.image_guidance != 1
        halves = 0.0 if pictured and self.halves == 1 else self.halves
        return self.words.states(part, self.cfg, plan.sizes, halves)

    def _start(self, part: slice, plan: Plan, drawn: list[Source], noise: Tensor | None) -> Start:
        if self.images is not None:
            return self.images.start(part, drawn, noise, plan.shape)
        noise = initial_latents(drawn, plan.shape) if noise is None else noise
        return Start(noise, beside=self._all_hole(plan, drawn))

    def _second_start(
        self, part: slice, plan: Plan, hires: Hires, z: Tensor, drawn: list[Source]
    ) -> Start:
        clean = hires.enlarged(self.backbone, z, plan.size)
        noise = initial_latents(drawn, plan.shape)
        start = Start(noise, clean, hires.strength, beside=self._all_hole(plan, drawn))
        if self.edits and self.images is not None:
            self.images.edited(start, part, plan.size)
        return start

    def _all_hole(self, plan: Plan, drawn: list[Source]) -> Tensor | None:
        """Beside the latent of an inpainting base that is given no mask."""
        if self.edits or not channels_beside(self.backbone):
            return None
        return inpainting_channels(self.backbone, None, None, drawn, plan.shape[1:])

    def _finish(self, part: slice, z: Tensor, outputs: Outputs) -> list:
        made = []
        for number, image in enumerate(self._decoded(z), start=part.start):
            if self.images is not None:
                image = self.images.result(number, image)
            made.append(_to_pil(image) if outputs.output == "pil" else image)
        for number, picture in enumerate(made, start=part.start):
            if outputs.finished is not None:
                outputs.finished(number, picture)
        return made

    def _decoded(self, z: Tensor) -> Tensor:
        """Latents (N, C, h, w) → pictures (N, 3, H, W) in [0, 1]. Raises UserError where they are
        no numbers.
        """
        stop_if_asked()
        full = self.stepping.fast.vae == EXACT.vae  # the small decoder is torch's
        engine = engine_for(self.stepping.engine, self.backbone, quiet=True)
        decoded = engine.decode(z) if full else self.decoder(z)
        if not bool(torch.isfinite(decoded).all()):
            raise UserError(
                f"the VAE of {self.backbone.name} makes no numbers of the latents (NaN): its "
                "weights are damaged, or too large for the dtype; get the file again, or compute "
                "in float32."
            )
        return decoded


def _to_pil(image: Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())
