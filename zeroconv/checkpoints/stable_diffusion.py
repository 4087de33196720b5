"""A whole Stable Diffusion 1.x, 2.x or XL in one file (LDM layout) ↔ the weights of its parts in
diffusers' layout.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zeroconv.checkpoints.float8 import unscaled
from zeroconv.checkpoints.identify import identify, refuse_other_kind
from zeroconv.checkpoints.kinds import BASE, CONTROL, Kind
from zeroconv.checkpoints.names import Topology, inverse, rename, unet_names
from zeroconv.checkpoints.open_clip import from_open_clip, to_open_clip
from zeroconv.checkpoints.vae import vae_from_original, vae_to_original
from zeroconv.errors import UserError

State = dict[str, Tensor]

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
CLIP_XL, OPEN_CLIP_XL = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."

# what trainers leave in a file: schedules, averages, counters, losses, marks of what is predicted
_TRAINING = re.compile(
    r"(model_ema|first_stage_model\.loss|loss|denoiser|optimizer_states|callbacks)\.|"
    r"(.*betas|alphas_cumprod|sqrt_|log_one_minus|posterior_|logvar|lvlb_weights|global_step|"
    r"scale_factor|v_pred$|ztsnr$|.*position_ids$|.*logit_scale$|.*scaled_fp8$)"
)
AVERAGES = "model_ema."  # a second UNet: not kept for the way back


@dataclass
class StableDiffusion:
    """The weights of each part, under diffusers' and transformers' keys (text models' without
    `text_model.`).
    """

    unet: State
    vae: State  # empty: the file has none
    text: State
    open_clip: bool = False  # SD 2.x: its text encoder stops one layer early, with exact GELU
    text_2: State | None = None  # SDXL's second text encoder, OpenCLIP's with its projection
    rest: State = field(default_factory=dict)  # under the file's names: what no part reads

    @property
    def xl(self) -> bool:
        return self.text_2 is not None


def from_single_file(
    state: Mapping[str, Tensor], where: object = "the checkpoint", vae: bool = True
) -> StableDiffusion:
    """Take a full checkpoint apart. What only training needs (schedules, EMA copies) is left
    behind; a note says so of anything else that no part reads.

    vae: whether the file must hold the autoencoder. Raises UserError for a checkpoint without one
    of the parts, for SDXL's refiner, and for tensors that no part has.
    """
    _check_kind(state, where)
    unet, clip, open_clip = _under(state, UNET), _under(state, CLIP), _under(state, OPEN_CLIP)
    xl = any(key.startswith("conditioner.embedders.") for key in state)
    if xl:
        clip, open_clip = _under(state, CLIP_XL), _under(state, OPEN_CLIP_XL)
    autoencoder = _under(state, VAE)

    parts = {"UNet": unet, "autoencoder": autoencoder, "text encoder": clip or open_clip}
    parts |= {"first text encoder": clip, "second text encoder": open_clip} if xl else {}
    missing = [name for name, part in parts.items() if not part]
    if "autoencoder" in missing and (not vae or len(missing) == 1):
        missing.remove("autoencoder")
        if vae:
            raise UserError(
                f"{where} holds no autoencoder; give one with --vae FILE (vae= in Python)."
            )
    if missing:
        raise UserError(
            f"{where} holds no {' and no '.join(missing)}; a backbone in one file needs its UNet, "
            "its text encoder and its autoencoder."
        )
    with describing(where):
        model = _parts(unet, autoencoder, clip, open_clip, xl, where)
    model.rest |= _unread(state, where)
    return model


def _check_kind(state: Mapping[str, Tensor], where: object) -> None:
    """Raise UserError for anything else than a Stable Diffusion that zeroconv runs."""
    if any(key.startswith(("edm_mean", "edm_vpred")) for key in state):
        raise UserError(
            f"{where} was trained with EDM's noise levels (as Playground 2.5 and CosXL were), "
            "which zeroconv does not run; give another SDXL."
        )
    kind = identify(state)
    has_unet = any(key.startswith(UNET) for key in state)
    if kind is BASE or (has_unet and kind is CONTROL):
        return
    if kind is CONTROL:
        kind = Kind(CONTROL.name, CONTROL.what, "give it as the control")
    raise refuse_other_kind(kind, "base", where, state)


def _parts(
    unet: State, vae: State, clip: State, open_clip: State, xl: bool, where: object
) -> StableDiffusion:
    text, text_2, rest = bare_text(clip), None, {}
    if open_clip:
        prefix = OPEN_CLIP_XL if xl else OPEN_CLIP
        tower, unread = from_open_clip(unscaled(open_clip, where), where, sd2=not xl)
        text, text_2 = (text, tower) if xl else (tower, None)
        rest = {prefix + key: value for key, value in unread.items()}
    unet = {key: value for key, value in unet.items() if not key.endswith("scaled_fp8")}
    return StableDiffusion(
        unet=rename(unet, inverse(unet_names(Topology.of_original(unet))), where),
        vae=vae_from_original(vae, where) if vae else {},
        text=text,
        open_clip=bool(open_clip) and not xl,
        text_2=text_2,
        rest=rest,
    )


def _unread(state: Mapping[str, Tensor], where: object) -> State:
    """The tensors outside of every part, without averages; a note where some are not known."""
    xl = any(key.startswith("conditioner.embedders.") for key in state)
    parts = (UNET, CLIP_XL, OPEN_CLIP_XL) if xl else (UNET, CLIP, OPEN_CLIP)
    read = (*parts, *(VAE + part for part in ("encoder.", "decoder.", "quant_", "post_quant_")))
    rest = {
        key: value
        for key, value in state.items()
        if not key.startswith(read) or key.endswith("position_ids")
    }
    strange = [key for key in rest if not _TRAINING.match(key)]
    if strange:
        warnings.warn(
            f"{where} also holds {len(strange)} tensors that no part of the base reads, such as "
            f"{strange[0][:100]}; they are left out.",
            stacklevel=3,
        )
    return {key: value for key, value in rest.items() if not key.startswith(AVERAGES)}


@contextmanager
def describing(where: object) -> Iterator[None]:
    """Inside, a tensor that is missing or has another number of axes than in any base is one
    sentence.
    """
    try:
        yield
    except UserError as error:
        message = str(error)
        raise (
            error if str(where) in message else UserError(f"{where}: {message}")
        ) from error.__cause__
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
    """The inverse of `from_single_file`.

    What nothing reads is taken from `rest`; where that lacks it, SD 2.x gets a last layer of zeros,
    SDXL the positions of its first text encoder and OpenCLIP's temperature.
    """
    names = unet_names(Topology.of_diffusers(model.unet))
    state = {UNET + key: value for key, value in rename(model.unet, names, "UNet").items()}
    if model.vae:
        state |= {VAE + key: value for key, value in vae_to_original(model.vae).items()}

    if model.text_2 is not None:
        positions = model.text["embeddings.position_embedding.weight"].shape[0]
        text = {f"{CLIP_XL}text_model.{key}": value for key, value in model.text.items()}
        text[f"{CLIP_XL}text_model.embeddings.position_ids"] = torch.arange(positions)[None]
        second = to_open_clip(model.text_2, sd2=False)
        text |= {OPEN_CLIP_XL + key: value for key, value in second.items()}
    elif model.open_clip:
        text = {OPEN_CLIP + k: v for k, v in to_open_clip(model.text, sd2=True).items()}
    else:
        text = {f"{CLIP}text_model.{key}": value for key, value in model.text.items()}
    return state | text | model.rest


def bare_text(state: Mapping[str, Tensor]) -> State:
    """CLIP text weights of any transformers version: without the `text_model.` prefix and the
    position counter.
    """
    bare = {key.removeprefix("text_model."): value for key, value in state.items()}
    unread = ("position_ids", "scaled_fp8", "logit_scale")
    return {key: value for key, value in bare.items() if not key.endswith(unread)}


def _under(state: Mapping[str, Tensor], prefix: str) -> State:
    return {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }
