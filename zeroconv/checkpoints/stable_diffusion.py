"""A whole Stable Diffusion 1.x or 2.x in one file (LDM layout) ↔ the weights of its parts in
diffusers' layout.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroconv.checkpoints.identify import identify, refuse_other_kind
from zeroconv.checkpoints.kinds import CONTROL, Kind
from zeroconv.checkpoints.names import Topology, inverse, rename, unet_names, vae_names
from zeroconv.errors import UserError

State = dict[str, Tensor]

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."

_OPEN_CLIP_NAMES = {
    "embeddings.token_embedding": "token_embedding",
    "final_layer_norm": "ln_final",
}
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


@dataclass
class StableDiffusion:
    """The weights of each part, under diffusers' and transformers' keys (the text model's without
    `text_model.`).
    """

    unet: State
    vae: State
    text: State
    open_clip: bool  # SD 2.x: its text encoder stops one layer early, with exact GELU


def from_single_file(
    state: Mapping[str, Tensor], where: object = "the checkpoint"
) -> StableDiffusion:
    """Take a full checkpoint apart. What only training needs (schedules, EMA copies) is left
    behind.

    Raises UserError for SDXL, for a checkpoint without one of the parts, and for tensors that no
    part has.
    """
    if any(key.startswith("conditioner.embedders.") for key in state):
        raise UserError(
            f"{where} is an SDXL in one file, which zeroconv does not read; give its diffusers "
            "folder."
        )
    if not any(key.startswith(UNET) for key in state):
        kind = identify(state)
        kind = (
            Kind(CONTROL.name, CONTROL.what, "give it as the control") if kind is CONTROL else kind
        )
        raise refuse_other_kind(kind, "base", where, state)
    unet, vae = _under(state, UNET), _under(state, VAE)
    clip, open_clip = _under(state, CLIP), _under(state, OPEN_CLIP)
    parts = {"UNet": unet, "autoencoder": vae, "text encoder": clip or open_clip}
    missing = [name for name, part in parts.items() if not part]
    if missing:
        raise UserError(
            f"{where} holds no {' and no '.join(missing)}; a backbone in one file needs all three."
        )
    vae = {
        k: v
        for k, v in vae.items()
        if k.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant_conv."))
    }
    with describing(where):
        return _parts(unet, vae, clip, open_clip, where)


def _parts(
    unet: State, vae: State, clip: State, open_clip: State, where: object
) -> StableDiffusion:
    vae = rename(
        vae, inverse(vae_names(*_vae_shape(vae, "encoder.down.{}.block.{}.conv1.weight"))), where
    )
    return StableDiffusion(
        unet=rename(unet, inverse(unet_names(Topology.of_original(unet))), where),
        vae={k: _as_linear(k, v) for k, v in vae.items()},
        text=_from_open_clip(open_clip, where) if open_clip else bare_text(clip),
        open_clip=bool(open_clip),
    )


@contextmanager
def describing(where: object) -> Iterator[None]:
    """Inside, a tensor that is missing or has another number of axes than in any base is one
    sentence.
    """
    try:
        yield
    except UserError as error:
        said = str(error)
        raise (error if str(where) in said else UserError(f"{where}: {said}")) from error.__cause__
    except KeyError as error:
        raise UserError(
            f"{where} lacks {error.args[0]}; it is damaged or no Stable Diffusion."
        ) from error
    except (IndexError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(" .")
        raise UserError(
            f"{where} holds tensors of shapes that no Stable Diffusion has ({reason})."
        ) from error


def to_single_file(model: StableDiffusion) -> State:
    """The inverse of `from_single_file`; SD 2.x gets back a last layer that nothing reads, filled
    with zeros.
    """
    vae = {k: _as_convolution(k, v) for k, v in model.vae.items()}
    shape = _vae_shape(vae, "encoder.down_blocks.{}.resnets.{}.conv1.weight")
    state = {
        UNET + k: v
        for k, v in rename(
            model.unet, unet_names(Topology.of_diffusers(model.unet)), "UNet"
        ).items()
    }
    state |= {VAE + k: v for k, v in rename(vae, vae_names(*shape), "VAE").items()}
    if model.open_clip:
        return state | {OPEN_CLIP + k: v for k, v in _to_open_clip(model.text).items()}
    return state | {f"{CLIP}text_model.{k}": v for k, v in model.text.items()}


def bare_text(state: Mapping[str, Tensor]) -> State:
    """CLIP text weights of any transformers version: without the `text_model.` prefix and the
    position counter.
    """
    bare = {key.removeprefix("text_model."): value for key, value in state.items()}
    return {key: value for key, value in bare.items() if not key.endswith("position_ids")}


def modern_vae(state: Mapping[str, Tensor]) -> State:
    """The autoencoders of older diffusers folders name their attention otherwise (query, key,
    value, proj_attn).
    """
    old = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    modern = {}
    for key, value in state.items():
        name = (
            ".".join(old.get(part, part) for part in key.split("."))
            if ".attentions." in key
            else key
        )
        modern[name] = _as_linear(name, value)
    return modern


def _under(state: Mapping[str, Tensor], prefix: str) -> State:
    return {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }


def _vae_shape(state: Mapping[str, Tensor], pattern: str) -> tuple[int, int]:
    layers = sum(pattern.format(0, j) in state for j in range(16))
    return layers, sum(pattern.format(i, 0) in state for i in range(16))


def _as_linear(key: str, value: Tensor) -> Tensor:
    """LDM's autoencoder attends with 1×1 convolutions, diffusers' with matrices."""
    return value[:, :, 0, 0].contiguous() if ".attentions." in key and value.ndim == 4 else value


def _as_convolution(key: str, value: Tensor) -> Tensor:
    return value[:, :, None, None] if ".attentions." in key and value.ndim == 2 else value


def _from_open_clip(state: State, where: object) -> State:
    """OpenCLIP's text tower → transformers' CLIPTextModel without its last layer: SD 2.x reads the
    one before.
    """
    layers = sum(key.endswith(".ln_1.weight") for key in state) - 1
    names, text = inverse(_open_clip_names(layers)), {}
    skip = ("logit_scale", "text_projection", f"transformer.resblocks.{layers}.")
    rest = {key: value for key, value in state.items() if not key.startswith(skip)}
    text["embeddings.position_embedding.weight"] = rest.pop("positional_embedding")
    for i in range(layers):
        for kind in ("weight", "bias"):
            joined = rest.pop(f"transformer.resblocks.{i}.attn.in_proj_{kind}")
            for name, part in zip("qkv", joined.chunk(3), strict=True):
                text[f"encoder.layers.{i}.self_attn.{name}_proj.{kind}"] = part.contiguous()
    return text | rename(rest, names, where)


def _to_open_clip(text: State) -> State:
    layers = sum(key.endswith(".layer_norm1.weight") for key in text)
    rest, state = dict(text), {}
    state["positional_embedding"] = rest.pop("embeddings.position_embedding.weight")
    for i in range(layers):
        for kind in ("weight", "bias"):
            parts = [rest.pop(f"encoder.layers.{i}.self_attn.{name}_proj.{kind}") for name in "qkv"]
            state[f"transformer.resblocks.{i}.attn.in_proj_{kind}"] = torch.cat(parts)
    state |= rename(rest, _open_clip_names(layers), "text encoder")
    last, unread = f"transformer.resblocks.{layers - 1}.", f"transformer.resblocks.{layers}."
    return state | {
        unread + key.removeprefix(last): torch.zeros_like(value)
        for key, value in state.items()
        if key.startswith(last)
    }


def _open_clip_names(layers: int) -> dict[str, str]:
    names = dict(_OPEN_CLIP_NAMES)
    for i in range(layers):
        names |= {
            f"encoder.layers.{i}.{a}": f"transformer.resblocks.{i}.{b}"
            for a, b in _OPEN_CLIP_LAYER.items()
        }
    return names
