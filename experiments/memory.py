"""`zeroconv.generate` that remembers: every picture is kept under the name of all that decides it.

A run that is killed goes on at the batch it had reached, a larger --count adds to what is there,
and two figures that ask for the same picture make it once.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin
from torch import Tensor, nn

import zeroconv
from zeroconv.backbones import Backbone
from zeroconv.backbones.loading.locate import ASSETS
from zeroconv.errors import UserError
from zeroconv.files import atomic_write
from zeroconv.generation import Control, generate

STEPS, CFG, GUIDANCE = 12, 4.0, "cond"  # what `zeroconv evaluate` and the README's tables use
FOLDER = Path("runs/paper/pictures")


@dataclass
class Maker:
    """Makes pictures with one base model, or takes them from `folder`.

    `costs`: what each picture that was handed out cost when it was made, in seconds of CPU time.
    """

    backbone: Backbone
    folder: Path = FOLDER
    batch_size: int = 16
    fresh: bool = False  # make everything anew, once
    costs: dict[Path, float] = field(default_factory=dict, repr=False)
    _base: str = field(default="", repr=False)

    def __call__(
        self,
        prompts: Sequence[str],
        controls: Sequence[Control] = (),
        seeds: Sequence[int] | None = None,
        **settings: Any,
    ) -> list[Image.Image]:
        """One picture a prompt; a control's hint is one picture for all or a list of one a prompt.

        `settings` are those of `generate` (guidance, cfg, steps, scheduler, negative), by default
        those of `zeroconv evaluate`. `seeds`: 0, 1, … by default.
        """
        settings = {"guidance": GUIDANCE, "cfg": CFG, "steps": STEPS, **settings}
        seeds = list(range(len(prompts))) if seeds is None else list(seeds)
        rows = [_rows(control.hint, len(prompts)) for control in controls]
        paths = self._paths(list(prompts), list(controls), rows, seeds, settings)
        known = self.costs if self.fresh else ()
        missing = [
            i
            for i, path in enumerate(paths)
            if path not in known and (self.fresh or not path.is_file())
        ]
        for first in range(0, len(missing), self.batch_size):
            part = missing[first : first + self.batch_size]
            parted = [
                _with_hint(c, [row[i] for i in part]) for c, row in zip(controls, rows, strict=True)
            ]
            began = time.process_time()
            made = generate(
                self.backbone, [prompts[i] for i in part], parted, seed=[seeds[i] for i in part],
                batch_size=len(part), **settings,
            )  # fmt: skip
            share = (time.process_time() - began) / len(part)
            for i, image in zip(part, made, strict=True):
                _save(image, paths[i], share)
        return [self._open(path) for path in paths]

    def _paths(
        self, prompts: list[str], controls: list[Control], rows: list, seeds: list, settings: dict
    ) -> list:
        base: Any = self.backbone
        self._base = self._base or digest(base.unet, base.vae, *base.text_encoders)
        nets = [digest(control.net) for control in controls]
        common = [
            zeroconv.__version__,
            self._base,
            settings,
            nets,
            [_options(control) for control in controls],
        ]
        paths = []
        for i, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            key = json.dumps(
                [*common, prompt, seed, [_hint_name(row[i]) for row in rows]], sort_keys=True
            )
            name = hashlib.sha256(key.encode()).hexdigest()[:32]
            paths.append(self.folder / name[:2] / f"{name}.png")
        return paths

    def _open(self, path: Path) -> Image.Image:
        with Image.open(path) as file:
            file.load()
            self.costs[path] = float(file.info.get("cpu_seconds", 0))
            return file.convert("RGB")


@cache
def weights_mark(*names: str) -> str:
    """Names embedded models by the bytes of their weights, so that what was measured of older ones
    is not taken for theirs; without names, all that are embedded.
    """
    sha = hashlib.sha256()
    for folder in [ASSETS / name for name in names] or [ASSETS]:
        for file in sorted(folder.rglob("*.safetensors")):
            sha.update(f"{file.relative_to(ASSETS)} ".encode() + file.read_bytes())
    return sha.hexdigest()[:8]


def digest(*modules: nn.Module) -> str:
    """Names modules by their weights: a control that was trained on makes new pictures."""
    sha = hashlib.sha256()
    for module in modules:
        for name, value in module.state_dict().items():
            sha.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()[:16]


def _rows(hint: Any, count: int) -> list:
    rows = list(hint) if isinstance(hint, list | tuple) else [hint] * count
    if len(rows) != count:
        raise UserError(
            f"{len(rows)} hints were given for {count} prompts; give one, or one a prompt."
        )
    return rows


def _with_hint(control: Control, hint: list) -> Control:
    values = {f.name: getattr(control, f.name) for f in fields(control)}
    return Control(**{**values, "hint": hint})


def _options(control: Control) -> dict[str, Any]:
    """Everything of a control but its network and hint; what JSON cannot hold (a mask) is refused
    by json itself.
    """
    return {
        f.name: getattr(control, f.name) for f in fields(control) if f.name not in ("net", "hint")
    }


def _hint_name(hint: Any) -> str:
    if isinstance(hint, Tensor):
        return hashlib.sha256(hint.contiguous().numpy().tobytes()).hexdigest()[:16]
    return hashlib.sha256(f"{hint.mode} {hint.size}".encode() + hint.tobytes()).hexdigest()[:16]


def _save(image: Image.Image, path: Path, seconds: float) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("cpu_seconds", f"{seconds:.4f}")
    with atomic_write(path) as temporary:
        image.save(temporary, pnginfo=info)
