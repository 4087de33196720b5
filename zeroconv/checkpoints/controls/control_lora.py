"""Control-LoRA (Stability AI 2023): a ControlNet as low-rank updates of its base's encoder.

The file has the original layout's names. A layer of the copy is a pair, `NAME.up` (out, rank, …)
and `NAME.down` (rank, in, …), whose product is added to the base's weight; biases, norms, hint
encoder and connections are whole. An empty tensor `lora_controlnet` marks it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from zeroconv.checkpoints.infer import infer_config
from zeroconv.checkpoints.names import Topology, controlnet_names, inverse, rename
from zeroconv.errors import UserError

MARK = "lora_controlnet"
State = dict[str, Tensor]


def is_control_lora(state: Mapping[str, Tensor]) -> bool:
    return MARK in state


def read_pairs(state: Mapping[str, Tensor], where: object) -> State:
    """The file's tensors under diffusers' names, pairs as pairs. Raises UserError."""
    state = {key: value for key, value in state.items() if key != MARK}
    ups = {key.removesuffix(".up") for key in state if key.endswith(".up")}
    downs = {key.removesuffix(".down") for key in state if key.endswith(".down")}
    if ups != downs:
        lonely = sorted(ups ^ downs)[0]
        raise UserError(f"{where}: of {lonely} only one of .up and .down is there; it is damaged.")
    seen = [*state, *(f"{name}.weight" for name in ups)]
    hint = sum(key.startswith("input_hint_block.") and key.endswith(".weight") for key in seen)
    if not hint:
        raise UserError(f"{where} is a Control-LoRA without a hint encoder; it is incomplete.")
    return rename(state, inverse(controlnet_names(Topology.of_original(seen), hint)), where)


def config_of_pairs(pairs: Mapping[str, Tensor]) -> dict:
    """A ControlNet's config from the shapes that the weights will have. Raises UserError."""
    shapes = {key: value for key, value in pairs.items() if not key.endswith((".up", ".down"))}
    for key, up in pairs.items():
        if key.endswith(".up"):
            down = pairs[key.removesuffix("up") + "down"]
            shape = (up.shape[0], *down.shape[1:])
            shapes[key.removesuffix("up") + "weight"] = torch.empty(shape, device="meta")
    return infer_config(shapes)


def rank_of(pairs: Mapping[str, Tensor]) -> int:
    """The largest rank of a pair."""
    return max((v.shape[0] for key, v in pairs.items() if key.endswith(".down")), default=0)


def merged(pairs: Mapping[str, Tensor], base: Mapping[str, Tensor], where: object) -> State:
    """The whole ControlNet: W + up · down for each pair, W of `base`, the base's encoder; what the
    file does not have is the base's. float32. Raises UserError where shapes do not fit.
    """
    # what a distilled base (LCM) reads its guidance scale with, no ControlNet has
    merged_state = {key: value for key, value in base.items() if ".cond_proj." not in key}
    for key, value in pairs.items():
        if key.endswith(".down"):
            continue
        if not key.endswith(".up"):
            merged_state[key] = value
            continue
        name = key.removesuffix("up") + "weight"
        up, down = (x.float().flatten(1) for x in (value, pairs[key.removesuffix("up") + "down"]))
        weight, size = base.get(name), len(up) * down.shape[1]
        rank_fits = up.shape[1] == len(down)
        if weight is None or not rank_fits or (len(weight), weight.numel()) != (len(up), size):
            has = "nothing" if weight is None else list(weight.shape)
            raise UserError(
                f"{where} was made from another base: its update of {name} is {list(up.shape)} · "
                f"{list(down.shape)}, the base has {has} there."
            )
        merged_state[name] = weight.float() + (up @ down).reshape(weight.shape).to(weight.device)
    return merged_state
