"""FLUX Control (Black Forest Labs 2024): a transformer that reads the hint's latent beside its
noise, as channels of its own. It was trained whole, so it takes the base's transformer's place.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor

from zeroconv.backbones import Backbone, TextStates
from zeroconv.backbones.flow.flux import FluxBackbone
from zeroconv.backbones.loading.building_flow import build_part
from zeroconv.baselines.base import Baseline, Embedding
from zeroconv.checkpoints.bounds import check_config
from zeroconv.checkpoints.float8 import unscaled
from zeroconv.checkpoints.flow.file import read_flow, to_diffusers
from zeroconv.checkpoints.flow.infer import flux_config
from zeroconv.checkpoints.identify import identify
from zeroconv.checkpoints.kinds import FLUX
from zeroconv.checkpoints.reading import WEIGHT_FILES, read_config, read_weights
from zeroconv.checkpoints.stable_diffusion import describing
from zeroconv.checkpoints.typed import check_types
from zeroconv.errors import UserError

_CLASS = "FluxTransformer2DModel"


class FluxConcat(Baseline):
    """Runs a transformer whose input is the noise's latent and the hint's. `inner`: a backbone
    around that transformer, or the base itself where the base is such a one.
    """

    kind = "flux_control"
    exact_start = False
    _inner: FluxBackbone

    def __init__(self, backbone: FluxBackbone, inner: FluxBackbone) -> None:
        super().__init__()
        self.config = {"kind": self.kind, "options": {}, "zeroconv": {"base": backbone.name}}
        self._hide("_inner", inner)
        if inner is not backbone:
            self.transformer = inner.transformer

    @property
    def hint_space(self) -> Literal["pixels", "latent"]:
        return "latent"

    @torch.no_grad()
    def hint_latents(
        self, backbone: Any, hint: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Hints (N, 3, sH, sW) in [0, 1] → latents (N, C, H, W): the posterior's mean, or a sample.
        Raises UserError for a hint with a hole.
        """
        if bool((hint < 0).any()):
            raise UserError(
                "FLUX Control reads no hint with holes; fill the transparent parts of the hint."
            )
        moments = backbone.encode_image(hint * 2 - 1)
        return backbone.latents_from_moments(moments, generator, generator is not None)

    def predict_embedded(
        self,
        backbone: Any,
        z: Tensor,
        embedding: Embedding,
        t: Tensor | int,
        text: TextStates,
    ) -> Tensor:
        return self._inner.predict(torch.cat([z, embedding[0].to(z)], dim=1), t, text)

    def networks(self) -> list[torch.nn.Module]:
        return [self._inner.transformer]

    def save(self, folder: str | os.PathLike, dtype: torch.dtype | None = None) -> NoReturn:
        raise UserError("FLUX Control is a whole transformer, which zeroconv does not train.")

    @property
    def device(self) -> torch.device:
        return self._inner.device

    @property
    def dtype(self) -> torch.dtype:
        return self._inner.dtype


def is_flux_transformer(path: Path) -> bool:
    """Whether a path is a transformer of FLUX.1: one file, its folder, or a pipeline's."""
    if path.is_file():
        return path.suffix in WEIGHT_FILES and identify(path) is FLUX
    folder = _transformer_folder(path)
    return folder is not None and read_config(folder).get("_class_name") == _CLASS


def load_flux_control(path: Path, backbone: Backbone, dtype: torch.dtype | None) -> FluxConcat:
    """A FLUX Control for its base: FLUX.1, or the FLUX Control itself, which is held once then.
    Raises UserError for another transformer, and for one of another size.
    """
    if type(backbone) is not FluxBackbone:
        raise UserError(
            f"{path} is a transformer of FLUX.1, and {backbone.name} is another kind of base."
        )
    if backbone.reads_hint and Path(backbone.name).expanduser().resolve() == path.resolve():
        return FluxConcat(backbone, backbone)
    config, state = _read(path, dtype or backbone.dtype)
    kind = type(backbone.transformer)
    plain = {key: value for key, value in config.items() if not key.startswith("_")}
    check_config(plain, path)
    check_types(plain, kind, path)
    transformer = build_part(kind, config, state, path, dtype or backbone.dtype)
    inner = FluxBackbone(
        transformer, scheduler_config=backbone.scheduler_config, name=str(path),
        defaults=backbone.defaults,
    )  # fmt: skip
    if not inner.reads_hint:
        raise UserError(
            f"{path} reads no hint beside its noise, so it is no FLUX Control; load it as a base."
        )
    theirs, ours = inner.transformer.config, backbone.transformer.config
    for name in ("joint_attention_dim", "pooled_projection_dim"):
        if getattr(theirs, name) != getattr(ours, name):
            raise UserError(
                f"{path} was made for another base: its {name} is {getattr(theirs, name)}, that of "
                f"{backbone.name} {getattr(ours, name)}."
            )
    if inner.latent_channels != backbone.latent_channels:
        raise UserError(
            f"{path} was made for another base: its latents have {inner.latent_channels} channels, "
            f"those of {backbone.name} {backbone.latent_channels}."
        )
    return FluxConcat(backbone, inner).to(backbone.device)


def _transformer_folder(path: Path) -> Path | None:
    for folder in (path / "transformer", path):
        if (folder / "config.json").is_file():
            return folder
    return None


def _read(path: Path, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if (folder := _transformer_folder(path)) is not None:
        return read_config(folder), unscaled(read_weights(folder), folder, dtype)
    plain = unscaled(read_flow(path).transformer, path, dtype)
    state = to_diffusers(plain, FLUX.name, path)
    with describing(path):
        return flux_config(state), state
