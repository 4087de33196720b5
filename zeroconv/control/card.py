"""The model card of a control that is given away: what it is, how it was made, its figures."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

CARD = "README.md"
PICTURE = "samples.png"
_LONGEST = 200  # signs of a value


def card_of(
    name: str,
    kind: str,
    config: Mapping[str, Any],
    recipe: Mapping[str, Any] | None,
    figures: Mapping[str, Any],
    licence: str | None,
    picture: bool,
) -> str:
    """The text of README.md, with the hub's header.

    name: owner/name. kind: "control" or "lora". recipe: as the run's folder holds it, without local
    paths. figures: names and numbers. picture: whether `PICTURE` lies beside it.
    """
    ours = config.get("zeroconv") or {}
    condition, base = ours.get("condition"), base_of(recipe, config)
    title = name.split("/")[-1]
    what = "A ControlNet" if kind == "control" else "A LoRA"
    reads = f" that follows {condition} hints" if condition else ""
    lines = [_header(kind, base, licence), f"# {title}", ""]
    lines += [f"{what}{reads} for {base or 'a base that its files do not name'}.", ""]
    if picture:
        lines += [f"![Hints and pictures of the training's last sample]({PICTURE})", ""]
    lines += ["## Use", "", "```", *_use(name, kind, base), "```", ""]
    if figures:
        lines += ["## Figures", "", "| | |", "|---|---:|"]
        lines += [f"| {_cell(key)} | {_cell(value)} |" for key, value in figures.items()]
        lines.append("")
    if recipe:
        text = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)
        lines += ["## Recipe", "", "```yaml", *text.rstrip().splitlines(), "```", ""]
    lines += ["## Licence", "", licence or "Its author has named none.", ""]
    lines.append("Made with zeroconv.")
    return "\n".join(lines) + "\n"


def base_of(recipe: Mapping[str, Any] | None, config: Mapping[str, Any]) -> str | None:
    """The base, as a name; of a local path its last part."""
    base = (recipe or {}).get("base") or (config.get("zeroconv") or {}).get("base")
    return None if not isinstance(base, str) or not base else public(base)


def public(value: Any) -> Any:
    """A recipe's values without local paths: of each the last part is kept."""
    if isinstance(value, Mapping):
        return {key: public(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [public(inner) for inner in value]
    if isinstance(value, str) and _is_local(value):
        return os.path.basename(re.split(r"[?#]", value)[0].rstrip("/\\").replace("\\", "/"))
    return value


def _is_local(text: str) -> bool:
    return text.startswith(("/", "~", "./", "../", "\\", "file:")) or bool(
        re.match(r"[A-Za-z]:[\\/]", text)
    )


def _header(kind: str, base: str | None, licence: str | None) -> str:
    """The hub's YAML block."""
    values: dict[str, Any] = {"library_name": "diffusers", "pipeline_tag": "text-to-image"}
    values["tags"] = ["controlnet" if kind == "control" else "lora", "zeroconv"]
    if base is not None and re.fullmatch(r"[\w.-]+/[\w.-]+", base):
        values["base_model"] = base
    if licence:
        values["license"] = licence
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---\n"


def _use(name: str, kind: str, base: str | None) -> list[str]:
    base = base or "BASE"
    if kind == "control":
        return [f'zeroconv generate "PROMPT" --base {base} --control {name}:picture.png']
    return [f'zeroconv generate "PROMPT" --base {base} --lora {name}']


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.replace("|", "\\|").split())[:_LONGEST]


def newest_sample(run: Path) -> Path | None:
    """The last sheet of pictures that a run drew."""
    sheets = [p for kind in ("validation", "step") for p in (run / "samples").glob(f"{kind}-*.png")]
    return max(sheets, key=lambda path: path.stem.partition("-")[2]) if sheets else None
