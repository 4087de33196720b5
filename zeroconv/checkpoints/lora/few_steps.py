"""LoRAs that make pictures in few steps: the sampler, steps and guidance that each is made for.

A file does not say so in its tensors. Those of zeroconv have it in their header; published ones are
known by their names, as their authors describe them: LCM-LoRA (Luo et al. 2023), TCD (Zheng et al.
2024), Hyper-SD (Ren et al. 2024), SDXL-Lightning (Lin et al. 2024), DMD2 (Yin et al. 2024), SDXL
Turbo (Sauer et al. 2023).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zeroconv.errors import UserError
from zeroconv.jsonfile import parse_json

HEADER = "zeroconv.few_steps"
_TITLES = ("modelspec.title", "ss_output_name")  # of a header, as kohya's scripts write it


@dataclass(frozen=True)
class FewSteps:
    """scheduler: a name of `zeroconv.generation.samplers`. steps, cfg: the least and the most.

    eta: None is the sampler's own. guessed: known by the file's name alone.
    """

    name: str
    scheduler: str
    steps: tuple[int, int]
    cfg: tuple[float, float] = (1.0, 1.0)
    eta: float | None = None
    guessed: bool = False
    where: str = ""  # the file

    def words(self) -> str:
        """What to ask for, in a sentence."""
        eta = "" if self.eta is None else f", eta {self.eta:g}"
        return (
            f"scheduler {self.scheduler}, steps {_span(*self.steps)}, cfg {_span(*self.cfg)}{eta}"
        )

    def header(self) -> dict[str, str]:
        """Metadata of a safetensors file that say the same."""
        values = {"name": self.name, "scheduler": self.scheduler, "steps": self.steps}
        return {HEADER: json.dumps({**values, "cfg": self.cfg, "eta": self.eta})}


LCM = FewSteps("LCM-LoRA", "lcm", (2, 8), (1.0, 2.0))
# a UNet that is distilled itself and reads the guidance scale
LCM_UNET = FewSteps("LCM", "lcm", (1, 8), (1.0, 15.0))


def few_steps_of(file: Path, metadata: Mapping[str, str], generic: bool) -> FewSteps | None:
    """What a LoRA's file is made for; None for a LoRA of ordinary steps.

    generic: its name is that of every such file, so its folder's is read. Raises UserError for a
    header of zeroconv's that is damaged.
    """
    if HEADER in metadata:
        return _of_header(metadata[HEADER], file)
    names = [metadata.get(title, "") for title in _TITLES]
    # a folder of the hub's cache stands three above its files
    names += [folder.name for folder in list(file.parents)[:3]] if generic else [file.stem]
    for name in names:
        if (known := _of_name(name)) is not None:
            values = {**vars(known), "guessed": True, "where": str(file)}
            return FewSteps(**values)
    return None


def _of_name(name: str) -> FewSteps | None:
    """ "Hyper-SDXL-8steps-CFG-lora" → Hyper-SD of 8 steps."""
    words = re.sub(r"[^a-z0-9.]+", " ", name.lower())
    count = re.search(r"(?<!\d)(\d{1,2}) ?steps?\b", words)
    steps = (int(count[1]), int(count[1])) if count and 1 <= int(count[1]) <= 16 else None
    if re.search(r"\bhyper ?sd", words):
        if steps == (1, 1):  # one file for 1 to 8 steps
            return FewSteps("Hyper-SD", "tcd", (1, 8), eta=1.0)
        cfg = (5.0, 8.0) if re.search(r"\bcfg\b", words) else (1.0, 1.0)
        return FewSteps("Hyper-SD", "ddim_trailing", steps or (2, 8), cfg)
    if re.search(r"\blightning\b", words) and steps is not None:
        return FewSteps("Lightning", "euler_trailing", steps)
    if re.search(r"\bsd ?xl ?turbo\b", words):
        return FewSteps("SDXL Turbo", "euler_a_trailing", (1, 4))
    if re.search(r"\bdmd2\b", words):
        return FewSteps("DMD2", "lcm", (4, 4))
    if re.search(r"\btcd\b", words):
        return FewSteps("TCD", "tcd", (2, 8))
    return LCM if re.search(r"\blcm\b", words) else None


def _of_header(text: str, file: Path) -> FewSteps:
    try:
        values: Any = parse_json(text)
        steps, cfg, eta = values["steps"], values["cfg"], values["eta"]
        name, scheduler = values["name"], values["scheduler"]
        numbers = [*steps, *cfg, *([] if eta is None else [eta])]
        known = all(type(x) in (int, float) and 0 <= x <= 1000 for x in numbers)
        if not known or not all(isinstance(word, str) for word in (name, scheduler)):
            raise ValueError("numbers and names are of other types")
        (least, most), (low, high) = steps, cfg
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(
            f"{file}: its header's {HEADER} cannot be read ({str(error)[:80]}); the file is "
            "damaged."
        ) from error
    span = (int(least), int(most)), (float(low), float(high))
    return FewSteps(name[:80], scheduler[:80], *span, eta, where=str(file))


def _span(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
