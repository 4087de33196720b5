"""What a launcher and a recipe ask for together: several processes, and whether they cut up what
trains.

`accelerate launch` says what it wants in the environment. Each wish is followed or refused here;
nothing is passed over in silence.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from zeroconv.errors import UserError
from zeroconv.training.recipes.recipe import AnyRecipe, Recipe

_REFUSED = {
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "parallelism over several axes",
}


@dataclass(frozen=True)
class FsdpWish:
    """How FSDP2 cuts up what trains."""

    # whole weights are dropped behind a forward pass and gathered again for the backward pass
    reshard: bool = True
    note: str | None = None  # a line on settings of the launcher that decide nothing here


def check_launcher() -> None:
    """Raises UserError for a launcher that would take optimiser and checkpoints out of the loop's
    hands. To be called before accelerate reads the same wishes, and asks for packages that they
    need.
    """
    for name, what in _REFUSED.items():
        if _is_set(name):
            raise UserError(
                f"the launcher asks for {what}, which this trainer does not do; --use_fsdp "
                "--fsdp_version 2 shares the memory of several cards as ZeRO does, --multi_gpu "
                "keeps everything whole on each."
            )


def asked_fsdp(recipe: AnyRecipe) -> FsdpWish | None:
    """What `training.sharding` and the launcher say together; None: every process holds everything.

    Raises UserError where they contradict each other, and for what cannot be cut up.
    """
    setting, launcher = recipe.training.sharding, _is_set("ACCELERATE_USE_FSDP")
    if setting == "none" and launcher:
        raise UserError(
            "the launcher asks for FSDP and the recipe for training.sharding none; drop --use_fsdp "
            "or the setting."
        )
    if setting == "none" or (setting == "auto" and not launcher):
        return None
    try:
        from torch.distributed.fsdp import fully_shard  # noqa: F401
    except ImportError as error:
        raise UserError(
            "training.sharding fsdp needs torch 2.6 or newer; upgrade torch, or leave it out."
        ) from error
    _check_recipe(recipe)
    return _wishes(recipe) if launcher else FsdpWish()


def processors_only() -> bool:
    """Whether a launcher's processes have no graphics card to share: they meet on the processors.

    accelerate asks for cards alone where it is not told; each process would train by itself then.
    """
    import torch

    if _launched() == 1 or torch.cuda.is_available():
        return False
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return device is None or device.type == "mps"  # of which a machine has one


def _launched() -> int:
    """How many processes the launcher says that there are: torchrun, accelerate, MPI."""
    names = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
    sizes = (os.environ.get(name, "") for name in names)
    return max((int(size) for size in sizes if size.isdecimal()), default=1) or 1


def check_processes(fsdp: FsdpWish | None, processes: int) -> None:
    """Raises UserError where the launcher's processes do not know of each other, and where there is
    nothing to cut up over.
    """
    if processes < _launched():
        raise UserError(
            f"the launcher started {_launched()} processes, and this one sees {processes} of them; "
            "start them by torchrun or accelerate launch, or one alone."
        )
    if fsdp is not None and processes == 1:
        raise UserError(
            "training.sharding fsdp cuts what trains up over processes and there is one; launch "
            "several with torchrun or accelerate launch, or leave it out."
        )


def _check_recipe(recipe: AnyRecipe) -> None:
    """Raises UserError for what needs whole tensors."""
    settings = recipe.training
    if isinstance(recipe, Recipe) and recipe.control.kind != "controlnet":
        raise UserError(
            f"training.sharding fsdp cuts up a ControlNet or a LoRA of the base, not a "
            f"{recipe.control.kind}, which is small; leave it out."
        )
    if settings.compile:
        raise UserError(
            "training.compile was not made for weights that are cut up; leave it or sharding out."
        )
    if settings.precision == "fp16":
        raise UserError(
            "training.precision fp16 scales the loss by what all gradients say, which "
            "training.sharding fsdp cuts up; use bf16, or leave sharding out."
        )
    if settings.optimizer != "adamw":
        raise UserError(
            f"training.optimizer {settings.optimizer} looks at whole tensors, which "
            "training.sharding fsdp cuts up; use adamw, or leave sharding out."
        )


def _wishes(recipe: AnyRecipe) -> FsdpWish:
    """The wishes of `accelerate launch --use_fsdp`. Raises UserError for those that are not
    followed.
    """
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise UserError("the launcher asks for FSDP of version 1; add --fsdp_version 2.")
    refused = {
        "FSDP_OFFLOAD_PARAMS": (
            "parameters on the CPU; drop --fsdp_offload_params, as N cards hold a part of N each"
        ),
        "FSDP_ACTIVATION_CHECKPOINTING": (
            "activation checkpointing; ask for it by training.checkpointing instead"
        ),
        "FSDP_IGNORED_MODULES": (
            "modules that FSDP leaves alone; what must be left alone is known here, so drop it"
        ),
    }
    for name, what in refused.items():
        if _is_set(name):
            raise UserError(f"the launcher asks for {what}.")
    precision, ours = os.environ.get("ACCELERATE_MIXED_PRECISION", "no"), recipe.training.precision
    if precision not in ("no", "bf16" if ours == "bf16" else "no"):
        raise UserError(
            f"the launcher asks for mixed precision {precision} and the recipe for "
            f"training.precision {ours}; what the recipe says counts, so drop the launcher's or "
            "set bf16 there."
        )
    reshard = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower()
    if reshard not in ("true", "false"):
        raise UserError(
            f"--fsdp_reshard_after_forward {reshard} is of version 1; write true or false."
        )
    moot = {
        "FSDP_AUTO_WRAP_POLICY": "which modules are gathered together",
        "FSDP_STATE_DICT_TYPE": "how it is saved",
    }
    named = [f"{what} ({name.lower()})" for name, what in moot.items() if name in os.environ]
    note = f"not left to the launcher: {' and '.join(named)}" if named else None
    return FsdpWish(reshard == "true", note)


def _is_set(name: str) -> bool:
    return os.environ.get(name, "false").lower() not in ("", "0", "false", "no", "none")
