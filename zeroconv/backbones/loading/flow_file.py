"""A diffusion transformer in one file, and what stands beside the file or is given for it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from zeroconv.backbones.flow.flux import FluxBackbone
from zeroconv.backbones.flow.transformer import TransformerBackbone
from zeroconv.backbones.loading.flow import Family, Part, Weights, assemble
from zeroconv.backbones.loading.parts import Given
from zeroconv.backbones.loading.request import Request
from zeroconv.backbones.loading.tokenizer import flow_tokenizer
from zeroconv.checkpoints.float8 import unscaled
from zeroconv.checkpoints.flow.file import FlowFile, read_flow, to_diffusers
from zeroconv.checkpoints.flow.infer import CONFIGS
from zeroconv.checkpoints.flow.text_files import NAMES, text_config, without_projection
from zeroconv.checkpoints.flow.video_vae import of_video_vae, read_video_vae
from zeroconv.checkpoints.infer import infer_vae_config
from zeroconv.checkpoints.kinds import CHROMA, FLUX, Z_IMAGE
from zeroconv.checkpoints.reading import read_config, read_state_dict, read_weights
from zeroconv.checkpoints.stable_diffusion import describing
from zeroconv.checkpoints.vae import read_vae, vae_from_original
from zeroconv.errors import UserError

_SCHEDULE = "scheduler_config.json"
_GUIDANCE = ("guidance_in.", "time_text_embed.guidance_embedder.")


def load_flow_file(path: Path, request: Request) -> TransformerBackbone:
    """The transformer of a file, with text encoders and VAE from the file too, from `request.parts`
    or from beside it. Raises UserError.
    """
    file = read_flow(path)
    return assemble(FileSource(path, file, request), file.class_name, request, path)


class FileSource:
    """See `flow.Source`. What is given goes before what the file holds, and that before
    what stands beside it.
    """

    def __init__(self, path: Path, file: FlowFile, request: Request) -> None:
        self.path, self.file = path, file
        self.given = Given(request.parts)
        self.beside = Given([path.parent])

    def check(self, family: Family, request: Request) -> None:
        missing, hints = [], []
        for part in family.texts:
            if not part.optional and not self._has_text(part):
                name, starts = NAMES[part.kind]
                missing.append(f"the text encoder {name}")
                hints.append(f"{part.folder}/ or {starts[0]}*.safetensors")
        if not (request.vae or self.file.vae or self._vae_beside(family)):
            missing.append("a VAE")
            hints.append("vae/ or a VAE's file")
        if missing:
            raise UserError(
                f"{self.path} lacks {', '.join(missing)}: put {', '.join(hints)} beside it, or "
                "give their folder or files as --parts (parts= in Python)."
            )
        texts = {part.kind for part in family.texts}
        self.given.check_read(texts, vae=not request.vae, video=family.video_vae)

    def transformer(self, request: Request) -> Weights:
        stored, self.file.transformer = self.file.transformer, {}  # let go as soon as it is built
        plain = unscaled(stored, self.path, request.dtype)
        state = to_diffusers(plain, self.file.kind.name, self.path)
        if (folder := self._folder("transformer")) is not None:
            config = read_config(folder)
        else:
            with describing(self.path):
                config = CONFIGS[self.file.class_name](state)
        return Weights(config, state, self.path)

    def _has_text(self, part: Part) -> bool:
        return part.kind in self.file.texts or self._text_beside(part) is not None

    def _text_beside(self, part: Part) -> Path | None:
        return self.given.text(part.kind, part.folder) or self.beside.text(part.kind, part.folder)

    def text(self, part: Part, request: Request) -> Weights | None:
        given: Path | None = self.given.text(part.kind, part.folder)
        where = given or self.beside.text(part.kind, part.folder)
        if given is None and part.kind in self.file.texts:
            where, state, config = self.path, self.file.texts.pop(part.kind), None
        elif where is None:
            warnings.warn(
                f"{self.path} holds no {NAMES[part.kind][0]}, and none is given or stands beside "
                "it: its states are zeros.",
                stacklevel=6,
            )
            return None
        elif where.is_dir():
            state, config = read_weights(where, variant=request.variant), read_config(where)
        else:
            state, config = read_state_dict(where), None
        config = config or self._config(part.folder)
        if config is None:
            if self.file.kind is FLUX and part.kind == "clip_l":
                state = without_projection(state)
            config = text_config(state, part.kind, where)
        return Weights(config, state, where)

    def tokenizer(self, part: Part) -> Any:
        folder = self.given.tokenizer(part.tokenizer) or self.beside.tokenizer(part.tokenizer)
        return flow_tokenizer(self.path, folder, part.kind, part.tokenizer, part.read_tokenizer)

    def _vae_beside(self, family: Family) -> Path | None:
        video = family.video_vae
        return self.given.vae(video) or (None if self.file.vae else self.beside.vae(video))

    def vae(self, family: Family, request: Request) -> Weights:
        path = self._vae_beside(family)
        where = path or self.path
        said = self._config("vae")
        if family.video_vae:
            if path is None:
                config, state = of_video_vae(self.file.vae, self.path)
            else:
                config, state = read_video_vae(path)
            return Weights(said or config, state, where)
        if path is None:
            own, state = None, vae_from_original(self.file.vae, self.path)
        else:
            own, state = read_vae(path)
        if (known := own or said) is None:
            with describing(where):
                known = {**infer_vae_config(state), **family.vae}
        return Weights(known, state, where)

    def vae_config(self) -> dict[str, Any] | None:
        folder = self._folder("vae")
        return read_config(folder) if folder else None

    def scheduler(self) -> dict[str, Any] | None:
        if (folder := self._folder("scheduler", _SCHEDULE)) is not None:
            return read_config(folder, _SCHEDULE)
        if self.file.kind is Z_IMAGE:
            warnings.warn(
                f"{self.path} does not say whether it is Z-Image or Turbo; its noise levels are "
                "Turbo's (shift 3): a scheduler/ beside it or in --parts decides.",
                stacklevel=6,
            )
        if self.file.kind is CHROMA:
            warnings.warn(
                f"{self.path} does not say how its noise levels are shifted; they are FLUX.1 "
                "dev's: a scheduler/ beside it or in --parts decides.",
                stacklevel=6,
            )
        guided = any(key.startswith(_GUIDANCE) for key in self.file.transformer)
        if self.file.kind is FLUX and not guided:  # schnell
            return {**FluxBackbone.scheduler, "shift": 1.0, "use_dynamic_shifting": False}
        return None

    def _folder(self, name: str, file: str = "config.json") -> Path | None:
        return self.given.folder(name, file) or self.beside.folder(name, file)

    def _config(self, name: str) -> dict[str, Any] | None:
        return self.given.config(name) or self.beside.config(name)
