"""The original ControlNet layout and diffusers', there and back, exactly and strictly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from zeroconv.checkpoints.identify import identify, refuse_other_kind
from zeroconv.checkpoints.kinds import CONTROL, UNION
from zeroconv.checkpoints.names import Names, Topology, controlnet_names, inverse, rename
from zeroconv.errors import UserError

PREFIX = "control_model."

Layout = Literal["original", "diffusers"]


def layout_of(state: Mapping[str, Tensor], where: object = "the checkpoint") -> Layout:
    """Which of the two layouts a ControlNet's weights have; UserError for anything else, saying
    what it is.
    """
    if (kind := identify(state)) not in (CONTROL, UNION):
        raise refuse_other_kind(kind, "ControlNet", where, state)
    if f"{PREFIX}input_hint_block.0.weight" in state or "input_hint_block.0.weight" in state:
        return "original"
    if (
        "controlnet_cond_embedding.conv_in.weight" in state
        or "controlnet_cond_embedding.conv_out.weight" in state
    ):
        return "diffusers"
    raise UserError(
        f"{where} lacks input_hint_block.0.weight or controlnet_cond_embedding.conv_in.weight, "
        "where a ControlNet's hint enters; the file is incomplete."
    )


def original_to_diffusers(
    state: Mapping[str, Tensor], where: object = "the checkpoint"
) -> dict[str, Tensor]:
    """The original single file, bare, with its `control_model.` prefix, or inside a full model →
    diffusers' keys.

    Raises UserError naming the first tensors that are missing or that no ControlNet has.
    """
    # what stands beside it belongs to the frozen model
    if any(key.startswith(PREFIX) for key in state):
        state = {
            key.removeprefix(PREFIX): value
            for key, value in state.items()
            if key.startswith(PREFIX)
        }
    if "input_hint_block.0.weight" not in state:
        raise UserError(
            f"{where} is no ControlNet in the original layout; it has no input_hint_block.0.weight."
        )
    hint = sum(key.startswith("input_hint_block.") and key.endswith(".weight") for key in state)
    names = controlnet_names(Topology.of_original(state), hint)
    _check_modules(state, set(names.values()), where)
    return rename(state, inverse(names), where)


def diffusers_to_original(
    state: Mapping[str, Tensor], where: object = "the checkpoint", prefix: str = PREFIX
) -> dict[str, Tensor]:
    """diffusers' keys → the original layout, with its `control_model.` prefix unless told
    otherwise.
    """
    if "controlnet_cond_embedding.conv_in.weight" not in state:
        raise UserError(
            f"{where} has no controlnet_cond_embedding.conv_in.weight; only a ControlNet with the "
            "released hint encoder and connections that are not lite has a form in the original "
            "layout."
        )
    names = _diffusers_names(state)
    _check_modules(state, set(names), where)
    return {prefix + key: value for key, value in rename(state, names, where).items()}


def _diffusers_names(state: Mapping[str, Tensor]) -> Names:
    hint = sum(
        key.startswith("controlnet_cond_embedding.") and key.endswith(".weight") for key in state
    )
    return controlnet_names(Topology.of_diffusers(state), hint)


# modules that not every ControlNet has: SDXL's extra embedding; a shortcut where a block keeps its
# width
_OPTIONAL = ("label_emb", "add_embedding", "skip_connection", "conv_shortcut")


def _check_modules(state: Mapping[str, Tensor], modules: set[str], where: object) -> None:
    """Every module must have a weight; attention blocks are known by their first one."""
    needed = (m for m in modules if not any(part in m for part in _OPTIONAL))
    missing = sorted(
        m for m in needed if f"{m}.weight" not in state and f"{m}.norm.weight" not in state
    )
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        listed = ", ".join(f"{m}.weight" for m in missing[:3])
        raise UserError(
            f"{where} lacks {listed}{more}; the file is incomplete or belongs to another kind of "
            "model."
        )
