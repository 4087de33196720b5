"""`zeroconv push`: a control or LoRA with its card, in a folder first and then on the hub."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zeroconv.errors import UserError
from zeroconv.files import atomic_folder, check_output
from zeroconv.jsonfile import read_json

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
_SUMMARY = ("steps", "samples", "minutes", "samples_per_second", "examples")


def run(
    folder: Path,
    name: str,
    out: Path | None,
    figures: Path | None,
    licence: str | None,
    private: bool,
    upload: bool,
) -> dict[str, Any]:
    """Write the folder to be uploaded, and upload it unless `upload` is False. Returns a report.

    Raises UserError for what is no trained control or LoRA, for a name that the hub does not take,
    and where there is no token or the hub refuses.
    """
    if not _NAME.fullmatch(name) or ".." in name or "--" in name:
        raise UserError(f"{name[:120]!r} is no name on the hub; give OWNER/NAME.")
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise UserError(
            f"{licence[:80]!r} is no licence as the hub names them; give one such as apache-2.0, "
            "openrail or other."
        )
    kind, weights, source = find_weights(folder)
    target = out or folder.with_name(f"{folder.resolve().name}-push")
    check_output(target, "folder")
    measured = None if figures is None else figures_of(figures)
    write_folder(target, name, kind, weights, source, measured, licence)
    report: dict[str, Any] = {
        "folder": str(target),
        "files": sorted(p.name for p in target.iterdir()),
    }
    report |= {"name": name, "uploaded": None}
    if upload:
        report["uploaded"] = send(target, name, private)
    return report


def find_weights(folder: Path) -> tuple[str, Path, Path | None]:
    """ "control" or "lora", the folder of its weights, and the run's folder if there is one."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; give that of a run, or of a control.")
    for kind in ("control", "lora"):
        if (folder / kind).is_dir():
            return kind, folder / kind, folder
    if (folder / "recipe.json").is_file():
        raise UserError(f"the run in {folder} has not ended, so it has no control to push yet.")

    from zeroconv.checkpoints.identify import identify

    kind = identify(folder).name
    if kind not in ("control", "lora"):
        raise UserError(
            f"{folder} holds no control and no LoRA; give the folder of a run, or of a control."
        )
    beside = folder.resolve().parent
    return kind, folder, beside if (beside / "recipe.json").is_file() else None


def figures_of(path: Path) -> dict[str, Any]:
    """Numbers of a report that `zeroconv evaluate --json` wrote."""
    try:
        report = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no report of zeroconv evaluate ({error}).") from error
    numbers = _flat(report) if isinstance(report, dict) else {}
    if not numbers:
        raise UserError(f"{path} holds no figures; give a report of zeroconv evaluate --json.")
    return numbers


def _flat(values: Mapping[str, Any], before: str = "", depth: int = 0) -> dict[str, Any]:
    """Numbers by their path, of the first two levels."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{before}{key}".replace("_", " ")
        if isinstance(value, Mapping) and depth < 2:
            flat |= _flat(value, f"{name}: ", depth + 1)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[name] = value
    return flat


def write_folder(
    target: Path,
    name: str,
    kind: str,
    weights: Path,
    source: Path | None,
    measured: Mapping[str, Any] | None,
    licence: str | None,
) -> None:
    """Weights, card, recipe and the last sample, in one folder."""
    from zeroconv.control.card import CARD, PICTURE, card_of, newest_sample, public
    from zeroconv.jsonfile import to_json

    recipe = _read(source, "recipe.json").get("recipe") if source else None
    if recipe:
        recipe = public({k: v for k, v in recipe.items() if k not in ("out", "device")})
    summary = _read(source, "summary.json") if source else {}
    shown = {key.replace("_", " "): summary[key] for key in _SUMMARY if key in summary}
    config = _read(weights, "config.json")
    sheet = newest_sample(source) if source else None
    card = card_of(
        name, kind, config, recipe, {**shown, **(measured or {})}, licence, sheet is not None
    )
    with atomic_folder(target) as temporary:
        for path in sorted(weights.iterdir()):
            if path.suffix in (".safetensors", ".json") and not path.name.startswith("."):
                shutil.copyfile(path, temporary / path.name)
        if public(config) != config:
            text = to_json(public(config), indent=2, sort_keys=True) + "\n"
            (temporary / "config.json").write_text(text, encoding="utf-8")
        (temporary / CARD).write_text(card, encoding="utf-8")
        if recipe:
            text = to_json({"recipe": recipe}, indent=2) + "\n"
            (temporary / "recipe.json").write_text(text, encoding="utf-8")
        if sheet is not None:
            shutil.copyfile(sheet, temporary / PICTURE)


def _read(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object of a folder; empty where there is none."""
    try:
        values = read_json(folder / name)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / name} cannot be read ({error}).") from error
    return values if isinstance(values, dict) else {}


def send(folder: Path, name: str, private: bool) -> str:
    """Upload a folder; its address. Raises UserError, one sentence."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if get_token() is None:
        raise UserError(
            "there is no token for the hub: give `hf auth login`, or set HF_TOKEN, and push again; "
            f"what would be uploaded is in {folder}."
        )
    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        ignored = [".*"]
        done = api.upload_folder(folder_path=folder, repo_id=name, ignore_patterns=ignored)
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the hub did not take {name} ({reason}); what would be uploaded is in {folder}."
        ) from error
    return str(getattr(done, "repo_url", None) or done)
