"""`load_backbone`: "playroom", a diffusers folder, a hub id, or one weights file of Stable
Diffusion 1.x or 2.x; with LoRAs merged in.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeroconv.backbones.building import build_text_encoder, build_unet, build_vae
from zeroconv.backbones.encoder import check_latents
from zeroconv.backbones.locate import ASSETS, locate
from zeroconv.backbones.protocol import Defaults
from zeroconv.backbones.unet import DEFAULT_SCHEDULER, UNetBackbone
from zeroconv.checkpoints.bounds import check_config
from zeroconv.checkpoints.identify import kind_of_config, plain_state
from zeroconv.checkpoints.infer import infer_text_config, infer_unet_config, infer_vae_config
from zeroconv.checkpoints.lora import BASE, FILE, Lora, merge, parse_lora, read_lora
from zeroconv.checkpoints.lora import PARTS as LORA_PARTS
from zeroconv.checkpoints.reading import WEIGHT_FILES, read_config, read_state_dict, read_weights
from zeroconv.checkpoints.sniff import foreign
from zeroconv.checkpoints.stable_diffusion import describing, from_single_file
from zeroconv.checkpoints.typed import check_types
from zeroconv.errors import UserError

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_PATTERNS = ("model_index.json", BASE, FILE, *(f"{part}*/*" for part in PARTS))


def load_backbone(
    x: str | os.PathLike,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    prediction_type: str | None = None,
    lora: str | os.PathLike | Sequence[str | os.PathLike | tuple[str | os.PathLike, float]] = (),
) -> UNetBackbone:
    """Load a frozen Stable Diffusion; float32 on the CPU unless asked otherwise.

    x: "playroom" (embedded), a folder in diffusers' pipeline layout, a hub id `owner/name`, one
    weights file in the original layout, or a folder with a LoRA and a lora.json that names its base
    ("playroom-pencil" is one). lora: files, folders or hub ids to merge into the weights, in
    diffusers', peft's or kohya's layout; each with ":0.8" behind it, or as a pair (file, 0.8), for
    another weight than 1. Nothing is ever unpickled but tensors. `prediction_type` overrides what
    the model's files say; one file of SD 2.x says nothing, see `single_file_scheduler`. Raises
    UserError, one sentence, for whatever is wrong.
    """
    if x is None or not str(x):
        raise UserError(
            "no backbone was named; give 'playroom', a folder, a hub id or a .safetensors file."
        )
    path, own = _own_lora(locate(os.fspath(x), "backbone", _PATTERNS))
    dtype, loras = dtype or torch.float32, Loras([*own, *_given(lora)])
    load = _load_folder if path.is_dir() else _load_file
    backbone = load(path, str(x), dtype, prediction_type, loras)
    return backbone.to(device, dtype)


class Loras:
    """Changes to be merged into a base's parts while it is read, each with its weight."""

    def __init__(self, given: Sequence[tuple[str | os.PathLike, float]]) -> None:
        self.given: list[tuple[Lora, float]] = [
            (read_lora(locate(str(x), "LoRA")), weight) for x, weight in given
        ]

    def merged(self, state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
        """The weights of one of the base's parts, changed."""
        changed = dict(state)
        for lora, weight in self.given:
            changed = merge(changed, lora, part, weight)
        return changed

    def check_parts(self, texts: int) -> None:
        """Raise UserError where a change is of a text encoder that the base does not have."""
        for lora, _ in self.given:
            if missing := [part for part in lora.parts if part not in LORA_PARTS[: 1 + texts]]:
                raise UserError(
                    f"{lora.where} changes {missing[0]}, which this base lacks; it belongs to "
                    "another base."
                )


def _given(lora: Any) -> list[tuple[str | os.PathLike, float]]:
    entries = [lora] if isinstance(lora, str | os.PathLike) else list(lora)
    return [entry if isinstance(entry, tuple) else parse_lora(entry) for entry in entries]


def _own_lora(path: Path, above: tuple[Path, ...] = ()) -> tuple[Path, list[tuple[Path, float]]]:
    """A folder that is a LoRA and names its base → the base's path and that LoRA; any other path as
    it is.
    """
    if not (path / BASE).is_file():
        return path, []
    if path.resolve() in above:
        raise UserError(
            f"{path / BASE} names, in the end, itself as its base; write the base it was trained "
            "on into it."
        )
    note = read_config(path, BASE)
    base, weight = note.get("base"), note.get("weight", 1.0)
    if not isinstance(base, str) or not base or not isinstance(weight, int | float):
        raise UserError(
            f'{path / BASE} names no base; write {{"base": "playroom", "weight": 1.0}} into it.'
        )
    beside = path.parent / base  # as embedded models stand, or a base's folder beside its LoRA's
    found = beside if beside.exists() else locate(base, "backbone", _PATTERNS)
    found, below = _own_lora(found, (*above, path.resolve()))
    return found, [*below, (path, float(weight))]


def _load_folder(
    folder: Path, name: str, dtype: torch.dtype, prediction_type: str | None, loras: Loras
) -> UNetBackbone:
    _check_folder(folder)
    unet, vae = folder / "unet", folder / "vae"
    scheduler = read_config(folder / "scheduler", "scheduler_config.json")
    check_schedule(scheduler, folder / "scheduler")
    check_latents(unet_config := read_config(unet), folder)
    if prediction_type is not None:
        scheduler["prediction_type"] = prediction_type
    texts = [sub for sub in (folder / "text_encoder", folder / "text_encoder_2") if sub.is_dir()]
    loras.check_parts(len(texts))
    return UNetBackbone(
        build_unet(unet_config, loras.merged(read_weights(unet), "unet"), unet, dtype),
        build_vae(read_config(vae), read_weights(vae), vae, dtype),
        [
            build_text_encoder(
                read_config(sub), loras.merged(read_weights(sub), sub.name), sub, dtype
            )
            for sub in texts
        ],
        [load_tokenizer(folder / sub.name.replace("text_encoder", "tokenizer")) for sub in texts],
        scheduler,
        name=name,
        defaults=_defaults_of(folder),
    )


def check_schedule(config: dict, where: Path) -> None:
    """Raise UserError for what no scheduler can compute with."""
    from diffusers import DDIMScheduler

    check_config(config, where)
    check_types(config, DDIMScheduler, where)

    spacing, betas = config.get("timestep_spacing", "leading"), config.get("trained_betas")
    if spacing not in ("linspace", "leading", "trailing"):
        raise UserError(
            f"{where}: timestep_spacing is {str(spacing)[:80]!r}; it is linspace, leading or "
            "trailing."
        )
    if betas is not None and len(betas) != config.get("num_train_timesteps", 1000):
        raise UserError(
            f"{where}: trained_betas has {len(betas):,} entries, but it needs one for each of the "
            "num_train_timesteps."
        )


# what the figures of the playroom are published with
PLAYROOM = Defaults("cond", 4.0)


def _defaults_of(folder: Path) -> Defaults:
    """The playroom's for a base that reads the playroom's words, also one trained on from it."""
    words = _vocabulary(folder)
    return PLAYROOM if words and words == _vocabulary(ASSETS / "playroom") else Defaults()


def _vocabulary(folder: Path) -> dict[str, int] | None:
    try:
        file = folder / "tokenizer" / "tokenizer.json"
        return json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"]
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return None  # it has none of this form, or a damaged one, which `load_tokenizer` tells


def _check_folder(folder: Path) -> None:
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if not missing:
        return
    if len(missing) == len(PARTS) and (folder / "config.json").is_file():
        config = read_config(folder)
        kind, named = kind_of_config(config), config.get("_class_name") or config.get("model_type")
        raise UserError(
            f"{folder} holds {f'a {named}' if named else kind.what}, not a whole model "
            f"({kind.what}); give the folder with unet/, vae/, text_encoder/."
        )
    if (folder / "model_index.json").is_file():
        _check_pipeline(folder)
    if len(missing) == len(PARTS):
        raise UserError(
            f"{folder} is no model folder: it has none of {', '.join(f'{p}/' for p in PARTS)}."
        )
    raise UserError(
        f"the model in {folder} is incomplete: it lacks {', '.join(f'{p}/' for p in missing)}."
    )


def _check_pipeline(folder: Path) -> None:
    """Raise UserError for a whole model of another family than Stable Diffusion 1, 2 and XL."""
    named = str(read_config(folder, "model_index.json").get("_class_name") or "")
    if (folder / "transformer").is_dir() or (
        named and not named.startswith(("StableDiffusion", "LatentConsistency"))
    ):
        raise UserError(
            f"{folder} holds a {named or 'model with a transformer'}, which zeroconv does not run "
            "yet; it runs Stable Diffusion 1.x, 2.x and XL."
        )


def load_tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    # transformers raises OSError, TypeError and others for what is missing or broken
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"the tokenizer in {folder} cannot be read ({reason}); copy the model's again."
        ) from error
    if tokenizer.vocab_size < 3:  # transformers makes an empty one of a folder without a vocabulary
        raise UserError(
            f"the tokenizer in {folder} has no words (vocab.json or tokenizer.json); copy the "
            "model's again."
        )
    return tokenizer


# ---------------------------------------------------------------- one file


def _load_file(
    path: Path, name: str, dtype: torch.dtype, prediction_type: str | None, loras: Loras
) -> UNetBackbone:
    if path.suffix not in WEIGHT_FILES:
        what = foreign(path) if path.is_file() else "no file"
        raise UserError(
            f"{path} is no model{f' but {what}' if what else ''}; give a folder or a weights file "
            f"({', '.join(sorted(WEIGHT_FILES))})."
        )
    state = plain_state(read_state_dict(path))
    parts = from_single_file(state, path)
    scheduler = single_file_scheduler(path, parts.open_clip, prediction_type, state)
    learned_v = scheduler["prediction_type"] == "v_prediction"
    size = 96 if learned_v and parts.open_clip else 64  # SD 2.x learned v at 768 pixels
    with describing(path):
        text_config = infer_text_config(parts.text, "gelu" if parts.open_clip else "quick_gelu")
        unet_config, vae_config = infer_unet_config(parts.unet, size), infer_vae_config(parts.vae)
    check_latents(unet_config, path)
    loras.check_parts(1)
    return UNetBackbone(
        build_unet(unet_config, loras.merged(parts.unet, "unet"), path, dtype),
        build_vae(vae_config, parts.vae, path, dtype),
        [build_text_encoder(text_config, loras.merged(parts.text, "text_encoder"), path, dtype)],
        [_tokenizer_for(path, parts.open_clip)],
        scheduler,
        name=name,
    )


def single_file_scheduler(
    path: Path, sd2: bool, prediction_type: str | None, names: Container[str] = ()
) -> dict:
    """The schedule of SD 1.x and 2.x, which is one; what the model predicts cannot be seen in its
    weights.

    names: of the file's tensors. One called `v_pred` marks a model that predicts v, one called
    `ztsnr` a schedule that ends in pure noise. SD 1.x predicts ε. For SD 2.x, in this order:
    `prediction_type`; a .yaml beside the file, as is the custom, with `parameterization: "v"`; ε
    where the file's name says it is a base model ("base", "512"); else v.
    """
    if prediction_type is None and "v_pred" in names:
        prediction_type = "v_prediction"
    if prediction_type is None and sd2:
        note = path.with_suffix(".yaml")
        if note.is_file():
            text = note.read_text(encoding="utf-8", errors="replace").replace("'", '"')
            prediction_type = "v_prediction" if 'parameterization: "v"' in text else "epsilon"
        else:
            base = any(word in path.stem.lower() for word in ("base", "512"))
            prediction_type = "epsilon" if base else "v_prediction"
    found = {**DEFAULT_SCHEDULER, "prediction_type": prediction_type or "epsilon"}
    return {**found, "rescale_betas_zero_snr": True} if "ztsnr" in names else found


def _tokenizer_for(path: Path, sd2: bool) -> Any:
    """A tokenizer/ folder beside the file, else the one of the same family in the hub's cache, else
    from the hub.
    """
    beside = path.parent / "tokenizer"
    if beside.is_dir():
        return load_tokenizer(beside)
    name = "stabilityai/stable-diffusion-2" if sd2 else "openai/clip-vit-large-patch14"
    files = (
        ("tokenizer/*",)
        if sd2
        else ("tokenizer*", "vocab.json", "merges.txt", "special_tokens_map.json")
    )
    try:
        folder = locate(name, "tokenizer", files)
    except UserError as error:
        raise UserError(
            f"{path} holds no tokenizer, and {name} is not in the hub's cache and cannot be "
            f"fetched; put its tokenizer files into {beside}."
        ) from error
    return load_tokenizer(folder / "tokenizer" if sd2 else folder)
