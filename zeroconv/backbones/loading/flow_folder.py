"""A diffusion transformer in a folder of diffusers' pipeline layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zeroconv.backbones.flow.transformer import TransformerBackbone
from zeroconv.backbones.loading.flow import FAMILIES, Family, Part, Weights, assemble
from zeroconv.backbones.loading.request import Request
from zeroconv.backbones.protocol import Defaults
from zeroconv.checkpoints.reading import read_config, read_weights
from zeroconv.errors import UserError


def load_flow_folder(
    folder: Path, request: Request, defaults: Defaults | None = None
) -> TransformerBackbone:
    """Every part from its own folder; `request.variant` says which weights. Raises UserError."""
    request.check_no_parts(folder)
    return assemble(FolderSource(folder), class_of(folder), request, folder, defaults)


def class_of(folder: Path) -> str:
    """The class of a folder's transformer. Raises UserError for one that zeroconv does not run."""
    named = str(read_config(folder / "transformer").get("_class_name") or "")
    if named not in FAMILIES:
        raise UserError(
            f"{folder} holds a {named[:80] or 'transformer without a name'}, which zeroconv does "
            "not run; of transformers it runs SD 3, FLUX.1, Chroma, Qwen-Image and "
            "Z-Image."
        )
    return named


@dataclass(frozen=True)
class FolderSource:
    """See `flow.Source`."""

    folder: Path

    def check(self, family: Family, request: Request) -> None:
        names = ["transformer", "scheduler", *([] if request.vae else ["vae"])]
        for part in family.texts:
            names += [] if part.optional else [part.folder]
            if not part.optional or (self.folder / part.folder).is_dir():
                names.append(part.tokenizer)
        if missing := [name for name in names if not (self.folder / name).is_dir()]:
            lacking = ", ".join(f"{name}/" for name in missing)
            raise UserError(f"the model in {self.folder} is incomplete: it lacks {lacking}.")

    def transformer(self, request: Request) -> Weights:
        return self._read("transformer", request)

    def text(self, part: Part, request: Request) -> Weights | None:
        there = (self.folder / part.folder).is_dir()
        return self._read(part.folder, request) if there else None

    def tokenizer(self, part: Part) -> Any:
        return part.read_tokenizer(self.folder / part.tokenizer)

    def vae(self, family: Family, request: Request) -> Weights:
        return self._read("vae", request)

    def vae_config(self) -> dict[str, Any] | None:
        folder = self.folder / "vae"
        return read_config(folder) if (folder / "config.json").exists() else None

    def scheduler(self) -> dict[str, Any] | None:
        return read_config(self.folder / "scheduler", "scheduler_config.json")

    def _read(self, name: str, request: Request) -> Weights:
        folder = self.folder / name
        state = read_weights(folder, variant=request.variant)
        return Weights(read_config(folder), state, folder)
