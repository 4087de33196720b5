"""Pictures of requests that one call of `generate` can compute: hints drawn, progress, previews,
results kept as they come.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image

from zeroconv.errors import UserError
from zeroconv.serving.generation import Generation, Unit
from zeroconv.serving.jobs.calls import Call, Slot
from zeroconv.serving.jobs.history import History
from zeroconv.serving.jobs.job import Job
from zeroconv.serving.jobs.queue import Jobs
from zeroconv.serving.models import Models

AT_ONCE = 8  # pictures in a batch, at most


def pictures_at_once(width: int, height: int, device: str) -> int:
    """As many as take less time together than one after the other. On two cores pictures of Stable
    Diffusion's size do not.
    """
    enough = 128 * 128 if device == "cpu" else 512 * 512
    return max(1, min(AT_ONCE, AT_ONCE * enough // (width * height)))


class Maker:
    """What the worker knows for making pictures."""

    def __init__(self, models: Models, history: History, jobs: Jobs) -> None:
        self.models, self.history, self.jobs = models, history, jobs

    def make(self, jobs: Sequence[Job]) -> None:
        """Compute the pictures of jobs whose requests are `shared`, and keep each as it comes.

        Raises UserError, and Cancelled where no job is wanted any more.
        """
        from zeroconv.generation import Control, generate
        from zeroconv.generation.previews import preview_of

        first: Generation = jobs[0].work
        loras = first.merged()
        backbone = self.models.base(first.base or "", loras)
        frame = frame_of(backbone, first)
        call = Call(jobs, self.jobs, passes=1 if first.hires is None else 2)
        nets = [self.models.control(u.control, first.base or "", loras) for u in first.controls]
        hints = self._hints(jobs, nets, frame)
        controls = []
        for i, (unit, net) in enumerate(zip(first.controls, nets, strict=True)):
            column = [hints[slot.job.id][i] for slot in call.slots]
            hint = column[0] if len(jobs) == 1 else column
            controls.append(Control(net, hint, **unit_options(unit)))
        wants = any(job.work.previews for job in jobs)
        preview = preview_of(backbone) if wants else None
        at_once = self.models.settings.batch
        width, height = frame.size
        at_once = at_once or pictures_at_once(width, height, str(backbone.device))

        def heard(step: int, steps: int, latents: Any) -> None:
            call.step(step, steps, latents, preview)

        def keep(number: int, image: Image.Image) -> None:
            slot = call.slots[number]
            if not slot.job.cancelling:
                self._keep(slot, image, hints[slot.job.id], backbone)
            call.batch_ended(1)

        with _quiet([slot.request for slot in call.slots]):
            generate(
                backbone,
                [slot.request.prompt for slot in call.slots],
                controls,
                negative=_one_or_each([slot.request.negative for slot in call.slots]),
                seed=[slot.seed for slot in call.slots],
                batch_size=at_once,
                callback=heard,
                finished=keep,
                **arguments_of(first, frame),
            )

    def _hints(self, jobs: Sequence[Job], nets: Sequence[Any], frame: Frame) -> dict[str, list]:
        """job → a hint for each control."""
        return {
            job.id: [
                hint_of(unit, net, frame, job.work.image)
                for unit, net in zip(job.work.controls, nets, strict=True)
            ]
            for job in jobs
        }

    def _keep(self, slot: Slot, image: Image.Image, hints: list, backbone: Any) -> None:
        request, job = slot.request, slot.job
        settings = {**request.settings(), "seed": slot.seed, "count": 1}
        settings |= {"width": request.width, "height": request.height}
        about = about_of(request, slot.seed, image, backbone)
        regions = {
            f"mask {i}": unit.region
            for i, unit in enumerate(request.controls)
            if unit.region is not None
        }
        inputs = {"image": request.image, "mask": request.mask, **regions}
        given = {name: picture for name, picture in inputs.items() if picture is not None}
        kept = [hint for hint in hints if hint is not None]
        if len(kept) < len(hints):  # an inpaint control that reads picture and mask
            kept = [Image.new("L", (8, 8)) if hint is None else hint for hint in hints]
        result = self.history.add(job.id, image, about, settings, kept, given, request.keep)
        job.results.append(result)
        self.jobs.changed(job)


@contextmanager
def _quiet(requests: Sequence[Generation]) -> Iterator[None]:
    """Inside, nothing is noted on tags of LoRAs, where all that the prompts name are merged."""
    from zeroconv.prompts import loras_of

    every = all(len(loras_of(one.prompt)) == len(one.tagged) for one in requests)
    with warnings.catch_warnings():  # the worker's thread alone does this
        if every:
            warnings.filterwarnings("ignore", "prompt: <lora:")
        yield


@dataclass(frozen=True)
class Frame:
    """size: of the pictures to come, (width, height). hint_size: at which hints are drawn: with
    only_masked that of the given picture, of which `generate` takes the box. picture, mask: the
    given ones with new ground.
    """

    size: tuple[int, int]
    hint_size: tuple[int, int]
    picture: Image.Image | None = None
    mask: Image.Image | None = None


def frame_of(backbone: Any, request: Generation) -> Frame:
    """Raises UserError for what `generate` would refuse."""
    from zeroconv.generation.arguments import size_of
    from zeroconv.generation.image.given import ImageInputs
    from zeroconv.generation.sizes import shape_like

    if request.image is not None:
        inputs = ImageInputs(_image_options(request), backbone, 1, 1, request.steps)
        high, wide = inputs.size(request.height, request.width)
        one = inputs.different[0]
        hint_size = one.picture.size if request.only_masked else (wide, high)
        return Frame((wide, high), hint_size, one.picture, one.mask)
    default = (backbone.default_size, backbone.default_size)
    hint = next((u.hint or u.source or u.pose for u in request.controls), None)
    if hint is not None:
        default = shape_like(hint, backbone)
    high, wide = size_of(default, backbone.latent_scale, request.height, request.width, None)
    return Frame((wide, high), (wide, high))


def _image_options(request: Generation) -> Any:
    from zeroconv.generation.image.options import ImageOptions

    return ImageOptions(
        request.image, request.strength, request.mask, request.only_masked, request.padding,
        request.mask_blur, request.masked_content, True, request.expand, None,
    )  # fmt: skip


def hint_of(unit: Unit, net: Any, frame: Frame, image: Image.Image | None) -> Any:
    """The finished hint of a control; None of an inpaint control that reads picture and mask.

    Raises UserError.
    """
    from zeroconv.annotators.drawing import draw_hint
    from zeroconv.conditions import annotate, find, known, open_hint

    named = (net.config.get("zeroconv") or {}).get("condition")
    entry = known(str(named or unit.condition or unit.kind or unit.control))
    if unit.hint is not None:
        return open_hint(unit.hint, None if entry is None else entry.name, "the hint")
    if unit.pose is not None:
        return annotate("pose", unit.pose)
    condition = unit.condition or (None if entry is None else entry.name)
    source = unit.source if unit.source is not None else frame.picture
    if source is None:
        raise UserError(f"the control {unit.control} has no hint, source or pose; give one of them")
    if condition is None:
        raise UserError(f"the control {unit.control} does not tell what its hints show; give hint")
    if find(condition).name == "inpaint" and unit.source is None:
        return None
    return draw_hint(condition, source, frame.hint_size, _drawing_mode(unit), **unit.options)


def _drawing_mode(unit: Unit) -> str:
    """A picture from which a hint is drawn is cropped to the size, where nothing else is asked."""
    return "crop" if unit.resize == "stretch" and unit.source is not None else unit.resize


def unit_options(unit: Unit) -> dict[str, Any]:
    """What `Control` takes beside the net and its hint."""
    names = "scale start end mode region resize kind curve passes connection_scales"
    return {name: getattr(unit, name) for name in names.split()}


def arguments_of(request: Generation, frame: Frame) -> dict[str, Any]:
    """What `generate` takes that is the same for all pictures of a call."""
    names = (
        "steps cfg guidance schedule clip_skip eta guidance_rescale noise fast "
        "engine hires hires_strength hires_steps hires_upscaler"
    )
    arguments = {name: getattr(request, name) for name in names.split()}
    arguments |= {"scheduler": request.sampler, "width": frame.size[0], "height": frame.size[1]}
    if request.image is not None:
        names = "image strength mask only_masked padding mask_blur masked_content expand"
        arguments |= {name: getattr(request, name) for name in names.split()}
    return arguments


def about_of(request: Generation, seed: int, image: Image.Image, backbone: Any) -> dict[str, Any]:
    """What a picture's file says of its making, in the words of `zeroconv generate`."""
    from zeroconv.generation.guidance import settled

    guidance, cfg = settled(backbone, request.guidance, request.cfg)
    about = {**arguments_of(request, Frame(image.size, image.size))}
    for name, picture in (("image", request.image), ("mask", request.mask)):
        if picture is not None:
            about[name] = f"{name}.png"
    if request.hires is not None or request.image is not None:
        about |= {"width": request.width, "height": request.height}
    return {
        **about,
        "base": request.base,
        "lora": [f"{name}:{scale:g}" for name, scale in request.loras],
        "controls": [_described(i, unit) for i, unit in enumerate(request.controls)],
        "device": str(backbone.device),
        "prompt": request.prompt,
        "negative": request.negative,
        "seed": seed,
        "count": 1,
        "guidance": guidance,
        "cfg": cfg,
    }


def _described(number: int, unit: Unit) -> dict[str, Any]:
    return {
        "name": unit.control,
        "picture": f"hint-{number}.png",
        "drawn": False,
        "scale": unit.scale,
        "start": unit.start,
        "end": unit.end,
        "mode": unit.mode,
        "mask": None if unit.region is None else f"region-{number}.png",
        "resize": unit.resize,
        "passes": unit.passes,
        "kind": unit.kind,
        "curve": unit.curve,
        "connection_scales": unit.connection_scales,
        "of_image": unit.hint is unit.source is unit.pose is None,
    }


def _one_or_each(texts: list[str]) -> str | list[str]:
    return texts[0] if len(set(texts)) == 1 else texts
