"""Sampling: the loop that calls backbone, controls and scheduler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from zeroconv.backbones import Backbone, Flow, TextStates, UNetBackbone, is_split
from zeroconv.backbones.protocol import SplitBackbone
from zeroconv.control import Net, ResidualNet, is_additive
from zeroconv.control.compose import add_up
from zeroconv.errors import UserError
from zeroconv.generation.adapting import Adapting, inside, note_idle
from zeroconv.generation.baselines import Replacing
from zeroconv.generation.engines import Engine, Step, Torch
from zeroconv.generation.guidance import Curve, combine, factor_at, rescaled
from zeroconv.generation.image.latents import Start, begin, put_back
from zeroconv.generation.joining import features_of, grouped, residuals_of_group
from zeroconv.generation.samplers.noise import Source, seed_of
from zeroconv.generation.samplers.stepping import set_timesteps, step_options
from zeroconv.generation.saving import EXACT, Fast, saving_for
from zeroconv.generation.saving import predict as predict_saving
from zeroconv.layers.sampling import sampling_layers
from zeroconv.stopping import stop_if_asked


@dataclass
class Guide:
    """One control, ready for the loop: its hint embedding (N, C0, H, W), scales a connection, and
    window. Or a baseline and its own embedding, alone in the list.
    """

    net: Net
    embedding: Any
    scales: Sequence[float]
    start: float
    end: float
    uncond: bool  # whether the unconditional half is controlled too
    curve: Curve = "constant"
    pictures: Tensor | None = None  # (N,), a scale a picture
    masks: Sequence[Tensor] | None = None  # one a connection, (N, 1, h_i, w_i)
    scale: float = 1.0  # of the control, on top of those of its connections

    def acts(self, step: int, steps: int) -> bool:
        """Inside the window, in shares of the schedule.

        At a factor of zero there is nothing to compute either.
        """
        now = inside(self.start, self.end, step, steps)
        return now and any(self.scales) and self.scale * self.factor(step, steps) != 0

    def factor(self, step: int, steps: int) -> float:
        """The curve's, from the first step at fraction 0 to the last at 1."""
        return factor_at(self.curve, step / max(1, steps - 1))


def predict(
    backbone: Backbone,
    z: Tensor,
    t: Tensor,
    cond: TextStates,
    uncond: TextStates | None,
    guides: list[Guide],
    cfg: float,
    factors: Sequence[float] | None = None,
    text: TextStates | None = None,
    rescale: float = 0.0,
) -> Tensor:
    """The guided model output (N, C, H, W); `uncond` None means no guidance (β = 1). `factors`: one
    a guide. `text`: `uncond` and `cond` joined, where they are already. `rescale`: see `combine`.

    Where `uncond` is `cond`, because the prompt is the negative one, what both halves have in
    common is computed once: the encoder, and all of it where the controls act on both halves.
    """
    if uncond is cond and all(guide.uncond for guide in guides):
        uncond = None  # nothing lies between the halves for guidance to strengthen
    acting = list(zip(guides, factors or [1.0] * len(guides), strict=True))
    if any(not is_additive(guide.net) for guide in guides):
        return _predict_replaced(backbone, z, t, cond, uncond, acting, cfg, rescale)
    if not is_split(backbone):
        return _predict_unsplit(backbone, z, t, cond, uncond, acting, cfg, text, rescale)
    inner = [(guide, f) for guide, f in acting if guide.net.has_features]
    acting = [(guide, f) for guide, f in acting if not guide.net.has_features]
    if uncond is None:
        skips = _encode(backbone, inner, z, z, t, cond)
        return backbone.decode(_controlled(skips, acting, z, t, cond), t, cond)
    both, half = (
        [(guide, f) for guide, f in acting if guide.uncond == wanted] for wanted in (True, False)
    )
    text = text or TextStates.cat([uncond, cond])
    same = uncond is cond and all(guide.uncond for guide, _ in inner)
    x, states = (z, cond) if same else (torch.cat([z, z]), text)
    # 13 × (N or 2N, C_i, H / scale_i, W / scale_i)
    skips = _controlled(_encode(backbone, inner, x, z, t, states), both, x, t, states)
    if half:  # the first half is the unconditional one and stays as it is
        within = _controlled([s[-len(z) :] for s in skips], half, z, t, cond)
        skips = [torch.cat([s[: len(z)], c]) for s, c in zip(skips, within, strict=True)]
    without, with_prompt = backbone.decode(skips, t, text).chunk(2)
    return combine(without, with_prompt, cfg, rescale)


def _encode(
    backbone: SplitBackbone,
    inner: list[tuple[Guide, float]],
    x: Tensor,
    z: Tensor,
    t: Tensor,
    text: TextStates,
) -> list[Tensor]:
    """The frozen encoder at latents x, (N or 2N, C, H, W), with the features of adapters, which are
    made at latents z (N, C, H, W).
    """
    if not inner:
        return backbone.encode(x, t, text)
    return backbone.encode(x, t, text, features_of(inner, z, t, text, len(x) > len(z)))


def _controlled(
    skips: list[Tensor], acting: list[tuple[Guide, float]], z: Tensor, t: Tensor, text: TextStates
) -> list[Tensor]:
    """The encoder's outputs and, added to them, the residuals of every guide, at latents z (N or
    2N, C, H, W).
    """
    for group in grouped(acting):
        weighted = residuals_of_group(group, z, t, text)
        skips = [s + r for s, r in zip(skips, weighted, strict=True)]
    return skips


def _predict_unsplit(
    backbone: Backbone,
    z: Tensor,
    t: Tensor,
    cond: TextStates,
    uncond: TextStates | None,
    acting: list[tuple[Guide, float]],
    cfg: float,
    text: TextStates | None = None,
    rescale: float = 0.0,
) -> Tensor:
    """`predict` for a backbone without halves, a transformer: both halves of guidance in one pass,
    with residuals of zero where a guide leaves the unconditional half alone. A net of `one_text`
    runs once and gives both halves the same.
    """
    if uncond is None:
        residuals = _summed(backbone, acting, z, t, cond)
        return backbone.predict(z, t, cond, residuals)
    text = text or TextStates.cat([uncond, cond])
    x = torch.cat([z, z])
    ways: tuple[list[tuple[Guide, float]], ...] = ([], [], [])
    for guide, f in acting:
        one_text = getattr(guide.net, "one_text", False)
        ways[1 if not guide.uncond else 2 if one_text else 0].append((guide, f))
    both = _summed(backbone, ways[0], x, t, text)
    half = _summed(backbone, ways[1], z, t, cond)
    padded = [None if r is None else torch.cat([torch.zeros_like(r), r]) for r in half or ()]
    once = _summed(backbone, ways[2], z, t, cond)
    doubled = [None if r is None else torch.cat([r, r]) for r in once or ()]
    residuals = add_up(add_up(both, padded or None), doubled or None)
    without, with_prompt = backbone.predict(x, t, text, residuals).chunk(2)
    if not hasattr(type(backbone), "guided"):
        return combine(without, with_prompt, cfg, rescale)
    guided = cast(Any, backbone).guided(without, with_prompt, cfg)
    return rescaled(guided, with_prompt, rescale)


def _predict_replaced(
    backbone: Backbone,
    z: Tensor,
    t: Tensor,
    cond: TextStates,
    uncond: TextStates | None,
    acting: list[tuple[Guide, float]],
    cfg: float,
    rescale: float = 0.0,
) -> Tensor:
    """`predict` with one net that gives the whole output, and others whose residuals it takes."""
    ((guide, factor),) = [(g, f) for g, f in acting if not is_additive(g.net)]
    others = [(g, f) for g, f in acting if is_additive(g.net)]
    run = Replacing(guide.net, guide.embedding, guide.uncond, guide.scale * factor, guide.pictures)
    if uncond is None:
        return run.predict(backbone, z, t, cond, _summed(backbone, others, z, t, cond))
    text = TextStates.cat([uncond, cond])
    x = torch.cat([z, z])
    both = _summed(backbone, [(g, f) for g, f in others if g.uncond], x, t, text)
    half = _summed(backbone, [(g, f) for g, f in others if not g.uncond], z, t, cond)
    padded = [None if r is None else torch.cat([torch.zeros_like(r), r]) for r in half or ()]
    without, within = run.predict_halves(backbone, z, t, uncond, cond, add_up(both, padded or None))
    return combine(without, within, cfg, rescale)


def _summed(
    backbone: Backbone,
    acting: list[tuple[Guide, float]],
    z: Tensor,
    t: Tensor,
    text: TextStates,
) -> list[Tensor | None] | None:
    """One residual for each connection of the backbone, all guides added up; None without any."""
    total: list[Tensor | None] | None = None
    for group in grouped(acting):
        weighted = residuals_of_group(group, z, t, text)
        rule = cast(ResidualNet, group[0][0].net).spread
        total = add_up(total, backbone.spread(weighted, rule))
    return total


def evaluated(step: Step) -> Tensor:
    """The guided output of a step (N, C, H, W)."""
    given = step.backbone, step.z, step.t, step.cond, step.uncond
    cfg: Any = step.cfg
    if step.saving is not None:
        more = step.acting, cfg, step.text, step.rescale
        return predict_saving(step.saving, *given, *more)
    guides, factors = [guide for guide, _ in step.acting], [factor for _, factor in step.acting]
    return predict(*given, guides, cfg, factors, step.text, step.rescale)


def denoise(
    backbone: Backbone,
    start: Start,
    cond: TextStates,
    uncond: TextStates | None,
    guides: list[Guide],
    scheduler: Any,
    steps: int,
    cfg: float,
    sources: Sequence[Source],
    callback: Callable[[int, int, Tensor], None] | None = None,
    eta: float | None = None,
    rescale: float = 0.0,
    adapting: Adapting | None = None,
    fast: Fast = EXACT,
    engine: Engine | None = None,
) -> Tensor:
    """Noise, and a picture if there is one → latents (N, C, H, W), through `steps` steps of the
    scheduler, or int(steps · strength) of them.

    The latents keep the noise's dtype, the networks compute in the backbone's. `sources`: of the
    noise that steps add, one a picture. Windows of controls are shares of the steps taken.
    fast: what is used again from earlier steps. engine: what computes the networks; torch by
    default.
    Samplers of second order call the backbone twice a step, and each call counts in the callback
    and in the windows, as in diffusers.

    Raises UserError, with the step, where the latents stop being finite.
    """
    set_timesteps(scheduler, steps, start.noise, backbone)
    timesteps, z = begin(scheduler, steps, start, backbone)
    options = step_options(scheduler, sources, eta)
    flow, total = isinstance(backbone.process, Flow), len(timesteps)
    thirds = [uncond, uncond, cond] if start.edits else [uncond, cond]
    text = None if uncond is None else TextStates.cat(cast(list[TextStates], thirds))
    if start.edits and not all(guide.net.has_residuals for guide in guides):
        raise UserError(
            f"{backbone.name} edits pictures, in three evaluations a step, and takes ControlNets "
            "alone; leave other controls out."
        )
    engine = engine or Torch(backbone)
    windows = [(guide.start, guide.end) for guide in guides]
    note_idle([*windows, *(adapting.windows if adapting else [])], total)
    seeds, size = [seed_of(source) for source in sources], (z.shape[-2], z.shape[-1])
    saving = saving_for(fast, backbone, guides, start.edits, adapting is not None, seeds, size)
    layers = _layers(backbone, guides) if engine.name == "torch" else nullcontext()
    with (
        layers,
        adapting.attached() if adapting else nullcontext(),
        saving.attached(backbone, guides) if saving else nullcontext(),
    ):
        for i, t in enumerate(timesteps):
            stop_if_asked()
            acting = [guide for guide in guides if guide.acts(i, total)]
            factors = [guide.factor(i, total) for guide in acting]
            x = (z if flow else scheduler.scale_model_input(z, t)).to(backbone.dtype)
            if adapting is not None:
                adapting.step(i, total, t, cond if text is None else text)
            if start.edits:
                pairs = list(zip(acting, factors, strict=True))
                output = _predict_edit(backbone, x, t, cond, text, pairs, cfg, start, rescale)
            else:
                x = x if start.beside is None else torch.cat([x, start.beside.to(x)], dim=1)
                if saving is not None:
                    saving.begin(i, total, x, acting)
                pairs = list(zip(acting, factors, strict=True))
                step = Step(backbone, x, t, cond, uncond, text, pairs, cfg, rescale, saving)
                output = engine.evaluate(evaluated, step)
            z = scheduler.step(output.to(z.dtype), t, z, **options(z))[0]
            z = put_back(scheduler, z, start, timesteps[i + 1 :], flow)
            if not bool(torch.isfinite(z).all()):
                raise UserError(_not_finite(backbone, acting, i + 1, total))
            if callback is not None:
                callback(i + 1, total, z)
    return z


def _predict_edit(
    backbone: Backbone,
    z: Tensor,
    t: Tensor,
    cond: TextStates,
    text: TextStates | None,
    acting: list[tuple[Guide, float]],
    cfg: float,
    start: Start,
    rescale: float,
) -> Tensor:
    """InstructPix2Pix (Brooks et al. 2023, equation 3): guidance by the text and by the picture.

    Three evaluations: neither, the picture alone, both; `text` is that of the three, None where
    nothing is guided. Of controls, those that act on the
    unconditional half act on all three.
    """
    picture = cast(Tensor, start.beside).to(z)
    both = torch.cat([z, picture], dim=1)
    if text is None:
        return backbone.predict(both, t, cond, _summed(backbone, acting, both, t, cond))
    neither = torch.cat([z, torch.zeros_like(picture)], dim=1)
    x = torch.cat([neither, both, both])
    residuals = _summed(backbone, [(g, f) for g, f in acting if g.uncond], x, t, text)
    third = _summed(backbone, [(g, f) for g, f in acting if not g.uncond], both, t, cond)
    padded = [
        None if r is None else torch.cat([torch.zeros_like(r), torch.zeros_like(r), r])
        for r in third or ()
    ]
    outputs = backbone.predict(x, t, text, add_up(residuals, padded or None))
    without, pictured, prompted = outputs.chunk(3)
    guided = without + start.image_guidance * (pictured - without) + cfg * (prompted - pictured)
    return rescaled(guided, prompted, rescale)


def _not_finite(backbone: Backbone, acting: list[Guide], step: int, steps: int) -> str:
    names = [guide.net.condition or "a control" for guide in acting]
    models = " with ".join([backbone.name, ", ".join(names)] if names else [backbone.name])
    half = backbone.dtype == torch.float16
    why = (
        "float16 ends at 65504; compute in bfloat16 or float32"
        if half
        else "weights are damaged or too strong"
    )
    return f"the latents stop being numbers (NaN) in step {step} of {steps}, of {models}: {why}."


def _layers(backbone: Backbone, guides: list[Guide]) -> AbstractContextManager[None]:
    """A baseline's attention may differ from one half of guidance to the other with the same text,
    so nothing is kept.
    """
    nets = [guide.net for guide in guides]
    if not isinstance(backbone, UNetBackbone) or not all(map(is_additive, nets)):
        return nullcontext()
    return sampling_layers(backbone.unet, *cast(list[nn.Module], nets))
