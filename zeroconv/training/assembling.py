"""A trainer of a control from its recipe: the base and the network, the data, and what executes
the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from zeroconv.backbones import UNetBackbone, is_split, load_backbone
from zeroconv.backbones.offload import Offload
from zeroconv.baselines import load_net, make_baseline
from zeroconv.control import ControlNet, Net, new_control
from zeroconv.control.families import control_class
from zeroconv.control.flux import MODES, FluxControlNet
from zeroconv.control.union import ControlNetUnion
from zeroconv.data.buckets import Buckets
from zeroconv.data.cache.examples import Examples
from zeroconv.data.cache.hint_latents import HintEncoder
from zeroconv.data.dataset import Dataset
from zeroconv.data.holding_out import hold_out
from zeroconv.data.spec import check_masked, open_dataset
from zeroconv.errors import UserError
from zeroconv.generation.sizes import unit_of
from zeroconv.training.caching import cache_both, cache_settings, hint_encoder
from zeroconv.training.execution.choice import Launch
from zeroconv.training.execution.room import check_room
from zeroconv.training.measuring.rounds import Rounds
from zeroconv.training.model import kinds_of, prepare_control
from zeroconv.training.progress import ShowLine, print_line
from zeroconv.training.recipes.control import TRANSFORMER_SHAPE, ControlSettings
from zeroconv.training.recipes.recipe import AnyRecipe, Recipe
from zeroconv.training.recipes.training import TrainingSettings
from zeroconv.training.reporting.prompted import prepare
from zeroconv.training.reporting.reporter import Page, Reporter
from zeroconv.training.reward.reward import Reward, make_reward, sentence
from zeroconv.training.trainer import Trainer

# settings that a new ControlNet does not take
_NO_SHAPE = {"kind", "options", "init", "frozen_copy", "unlock_decoder", *TRANSFORMER_SHAPE}


def assemble(
    recipe: Recipe,
    launch: Launch,
    show_line: ShowLine = print_line,
    reporters: Sequence[Reporter] = (),
) -> Trainer:
    """Backbone, control and cached data of a recipe, put together."""
    settings, accelerator = recipe.data, launch.accelerator
    backbone = load_frozen(recipe, accelerator.device)
    size = settings.size or backbone.default_size
    check_room(recipe.training, backbone, size)
    control = make_control(recipe, backbone)  # now, so that what is wrong with it costs no work
    prompts = prepare(recipe.training.validation, settings.condition, backbone, size)
    train_set, held_out = open_data(recipe, size, unit_of(backbone))
    cache = cache_settings(recipe, accelerator.process_index, accelerator.num_processes)
    named = {source.condition for source in (*train_set.sources, *held_out.sources)}
    kinds_of(control, settings.condition, named)
    reward = reward_of(recipe, backbone, named, show_line)
    data, held = cache_both(recipe, backbone, (train_set, held_out), cache, show_line, control)
    check_hints(data, held)
    leave_text_(recipe.training, backbone)

    model = prepare_control(recipe, backbone, control.to(accelerator.device), reward)
    place_(recipe.training, backbone, accelerator.device)
    execution = launch.execution(model, data, recipe.training, show_line)
    lends = execution.main or execution.collective
    rounds = (
        Rounds(recipe, backbone, held_out) if recipe.training.evaluate_every and lends else None
    )
    heard = [*reporters, Page()]
    return Trainer(recipe, model, data, held, execution, show_line, rounds, heard, prompts)


def reward_of(
    recipe: Recipe, backbone: UNetBackbone, conditions: set[str | None], show_line: ShowLine
) -> Reward | None:
    """The reward that a recipe asks for, of hints of these conditions. Raises UserError."""
    settings = recipe.training.reward
    if settings is None:
        return None
    reward = make_reward(settings, backbone, recipe.base, recipe.data.condition, conditions)
    show_line(sentence(settings, recipe.training.batch_size))
    return reward


def load_frozen(recipe: AnyRecipe, device: torch.device) -> UNetBackbone:
    """The base on the device; of one whose parts are moved when needed, the UNet is not there yet.

    So that it comes in the numbers that it is held in, after what the cache needs is computed.
    """
    settings = recipe.training
    files: dict[str, Any] = recipe.base_files.options()
    if settings.precision in ("bf16", "bf16_weights") or settings.frozen in ("bf16", "int8", "fp8"):
        # so in which numbers the steps compute; its control copies weights that are published so
        files["flow_dtype"] = torch.bfloat16
    if settings.offload == "none":
        return load_backbone(recipe.base, device=device, **files)
    backbone = load_backbone(recipe.base, vae_tiling=True, **files)
    mover = Offload("model", device)
    for encoder in backbone.text_encoders:
        mover.hold("text", encoder)
    mover.hold("vae", backbone.vae)
    backbone.offload = mover
    return backbone


def leave_text_(settings: TrainingSettings, backbone: UNetBackbone) -> None:
    """Give back what the cache was filled with: the device's memory where parts are moved, and all
    of a transformer's text encoders where no picture is made on the way.
    """
    mover = backbone.offload
    if mover is not None:
        mover.leave()
    makes = settings.sample_count or settings.evaluate_every or settings.validation
    if is_split(backbone) or makes:
        return
    backbone.text_encoders, backbone.tokenizers = [], []
    if mover is not None:
        mover.forget("text")


def place_(settings: TrainingSettings, backbone: UNetBackbone, device: torch.device) -> None:
    """Have the frozen weights on the device; with offload "group", blocks while they compute.

    Raises UserError for a UNet's blocks.
    """
    if settings.offload != "group":
        backbone.denoiser.to(device)
        return
    if is_split(backbone):
        raise UserError(
            f"training.offload group moves the blocks of a diffusion transformer, and "
            f"{backbone.name} is a UNet; write model."
        )
    Offload("group", device, most=settings.offload_blocks).hold("unet", backbone.denoiser)


def hint_encoder_of(recipe: Recipe, backbone: UNetBackbone) -> HintEncoder | None:
    """What encodes the hints of the recipe's control, where that reads latents."""
    return None if is_split(backbone) else hint_encoder(backbone, make_control(recipe, backbone))


def check_hints(*parts: Examples) -> None:
    """Raises UserError where some pictures have a hint and others none."""
    for examples in parts:
        if len(examples.hints) != len(examples):
            raise UserError(
                f"{len(examples)} pictures have {len(examples.hints)} hints; give every picture "
                "one, or none."
            )


def make_control(recipe: Recipe, backbone: UNetBackbone) -> Net:
    """A new control or baseline of the recipe's kind (its random part drawn from the run's seed),
    or an old one to go on from.
    """
    settings, condition = recipe.control, recipe.data.condition
    if settings.init != "base":
        control = load_net(settings.init, backbone)
        union = hasattr(control, "of_kind")
        control.config["zeroconv"]["condition"] = None if union else condition
        return control if is_split(backbone) else control.to(torch.float32)
    split = is_split(backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        if settings.kind == "union" and split:  # each of its hints says its kind
            _check_no_transformer(backbone, settings)
            return ControlNetUnion.from_backbone(backbone, **settings.options)
        shape = {name: getattr(settings, name) for name in TRANSFORMER_SHAPE}
        if settings.kind == "union":
            _check_modes(backbone, settings)
            modes = int(settings.options.get("num_control_type", len(MODES)))
            return new_control(backbone, modes=modes, **shape).to(torch.float32)
        if settings.kind != "controlnet":
            if not split:
                raise UserError(
                    f"control.kind {settings.kind} is for a UNet, which {backbone.name} is not; "
                    "train a controlnet."
                )
            return make_baseline(settings.kind, backbone, condition=condition, **settings.options)
        if not split:
            _check_no_unet(settings)
            return new_control(backbone, condition, **shape).to(torch.float32)
        _check_no_transformer(backbone, settings)
        return ControlNet.from_backbone(
            backbone, condition=condition, **settings.model_dump(exclude=_NO_SHAPE)
        )


def _check_modes(backbone: UNetBackbone, settings: ControlSettings) -> None:
    """Raise UserError for a union of a base whose controls have no modes."""
    if control_class(backbone) is not FluxControlNet:
        raise UserError(
            f"a control of {backbone.name} has no modes; train a controlnet on hints of several "
            "kinds, sources with ?condition=NAME."
        )
    if other := [name for name in settings.options if name != "num_control_type"]:
        raise UserError(
            f"control.options.{other[0]} is of a UNet's union; one of FLUX.1 has num_control_type."
        )


def _check_no_transformer(backbone: UNetBackbone, settings: ControlSettings) -> None:
    """Raise UserError for settings that shape a copy of a transformer's blocks."""
    if given := [name for name in TRANSFORMER_SHAPE if getattr(settings, name) is not None]:
        raise UserError(
            f"control.{given[0]} is of controls of diffusion transformers, and {backbone.name} "
            "is a UNet; leave it out."
        )


def _check_no_unet(settings: ControlSettings) -> None:
    """Raise UserError for settings that shape a copy of a UNet's encoder."""
    for name, field in type(settings).model_fields.items():
        if name in _NO_SHAPE:
            continue
        if getattr(settings, name) != field.get_default(call_default_factory=True):
            raise UserError(
                f"control.{name} is of a UNet's ControlNet, and this base is a diffusion "
                f"transformer, whose controls have {', '.join(TRANSFORMER_SHAPE)}; leave it out."
            )


def open_data(recipe: Recipe, size: int, scale: int = 8) -> tuple[Dataset, Dataset]:
    """The pictures to train on and those to measure on; no picture is in both. `scale`: pixels
    that sides are multiples of.
    """
    settings = recipe.data
    buckets = (
        None
        if settings.buckets is None
        else Buckets.of(size, scale, **settings.buckets.model_dump())
    )
    options: dict[str, Any] = {"condition": settings.condition, "size": size, "buckets": buckets}
    options["masks"] = settings.masked_loss
    train_set = open_dataset(settings.train, **options)
    check_masked(train_set, " + ".join(settings.train))
    if settings.validation is not None:
        return train_set, open_dataset(settings.validation, **options)
    return hold_out(train_set, settings.validation_count)
