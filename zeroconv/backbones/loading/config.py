"""The configs of a base in one file: what its header says, else what its shapes and marks show."""

from __future__ import annotations

import re
import warnings
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from zeroconv.backbones.unet import DEFAULT_SCHEDULER
from zeroconv.checkpoints.infer import infer_text_config, infer_unet_config, infer_vae_config
from zeroconv.checkpoints.reading import read_metadata, read_text_table
from zeroconv.checkpoints.stable_diffusion import StableDiffusion, describing
from zeroconv.errors import UserError

HEADER = "zeroconv"  # where `zeroconv convert` writes the configs into a file's header

# kohya's word in a header (the ModelSpec of Stability AI) → diffusers'
_PREDICTIONS = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon"}
_YAML_V = re.compile(r"""parameterization:\s*["']?v\b|\bVScaling\b""")


def configs_of(
    parts: StableDiffusion,
    path: Path,
    names: Container[str] = (),
    prediction_type: str | None = None,
) -> dict[str, dict[str, Any]]:
    """The config of each part and of the schedule, by diffusers' names of parts.

    names: of the file's tensors. Raises UserError for shapes that no Stable Diffusion has.
    """
    header = read_metadata(path)
    scheduler = single_file_scheduler(path, parts.open_clip, prediction_type, names, header)
    learned_v = scheduler["prediction_type"] == "v_prediction"
    size = 96 if learned_v and parts.open_clip else 64  # SD 2.x learned v at 768 pixels
    with describing(path):
        pooled = None
        configs = {
            "text_encoder": infer_text_config(
                parts.text, "gelu" if parts.open_clip else "quick_gelu"
            )
        }
        if parts.text_2 is not None:
            configs["text_encoder_2"] = infer_text_config(parts.text_2, "gelu")
            pooled, size = configs["text_encoder_2"]["projection_dim"], 128
        configs["unet"] = infer_unet_config(parts.unet, size, pooled)
        configs["vae"] = infer_vae_config(parts.vae, parts.xl) if parts.vae else _vae_of(parts.xl)
    configs["scheduler"] = scheduler

    ours = _by_part(header, path)
    return {part: {**config, **ours.get(part, {})} for part, config in configs.items()} | (
        # what the caller and the marks say stands above a header's schedule
        {"scheduler": {**scheduler, **_schedule(ours, prediction_type)}}
    )


def _vae_of(xl: bool) -> dict[str, Any]:
    """What an autoencoder from elsewhere takes from its base."""
    scale = 0.13025 if xl else 0.18215
    return {"scaling_factor": scale, "force_upcast": xl, "sample_size": 1024 if xl else 512}


def _by_part(header: Mapping[str, str], path: Path) -> dict[str, dict[str, Any]]:
    """The configs in the header, by part; empty where another program wrote the file."""
    if HEADER not in header:
        return {}
    where = f"{path}: what its header says under {HEADER}"
    table = read_text_table(header[HEADER], where)
    if not all(isinstance(config, dict) for config in table.values()):
        raise UserError(f"{where} holds no configs by part; write the file again.")
    return table


def _schedule(ours: Mapping[str, Any], prediction_type: str | None) -> dict[str, Any]:
    given = {} if prediction_type is None else {"prediction_type": prediction_type}
    return {**ours.get("scheduler", {}), **given}


def single_file_scheduler(
    path: Path,
    sd2: bool,
    prediction_type: str | None,
    names: Container[str] = (),
    header: Mapping[str, str] | None = None,
) -> dict:
    """The schedule of SD 1.x, 2.x and XL, which is one; what the model predicts cannot be seen in
    its weights.

    names: of the file's tensors. One called `v_pred` marks a model that predicts v, one called
    `ztsnr` a schedule that ends in pure noise (Lin et al. 2024, section 3.1). What is predicted, in
    this order: `prediction_type`; the mark; the file's header (`modelspec.prediction_type`); a
    .yaml beside the file, as is the custom, with `parameterization: "v"`. Without any of them SD
    1.x and XL predict ε; SD 2.x predicts ε where the file's name says that it is a base model
    ("base", "512"), else v, and a note says so.
    """
    predicted = prediction_type or ("v_prediction" if "v_pred" in names else None)
    predicted = predicted or _PREDICTIONS.get(
        (header or {}).get("modelspec.prediction_type", "").lower()
    )
    note = path.with_suffix(".yaml")
    if predicted is None and note.is_file():
        text = note.read_text(encoding="utf-8", errors="replace")
        predicted = "v_prediction" if _YAML_V.search(text) else "epsilon"
    if predicted is None and sd2:
        base = any(word in path.stem.lower() for word in ("base", "512"))
        predicted = "epsilon" if base else "v_prediction"
        if HEADER not in (header or {}):
            why = "because its name says base or 512" if base else "as most of SD 2.x do"
            warnings.warn(
                f"{path} does not say what it predicts; it is taken to predict {predicted}, {why}; "
                f"a {note.name} beside it or prediction_type= in Python decides.",
                stacklevel=2,
            )
    scheduler = {**DEFAULT_SCHEDULER, "prediction_type": predicted or "epsilon"}
    return {**scheduler, "rescale_betas_zero_snr": True} if "ztsnr" in names else scheduler
