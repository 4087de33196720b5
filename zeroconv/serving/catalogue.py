"""What may be named in a request: bases, controls, LoRAs and data sets, listed once at start."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zeroconv.conditions import known
from zeroconv.conditions.union import kind_names
from zeroconv.errors import UserError
from zeroconv.jsonfile import read_json
from zeroconv.serving.errors import one_sentence
from zeroconv.serving.settings import ServerSettings

ASSETS = Path(__file__).resolve().parent.parent / "assets"
_OF_SPECS = "?+{}"  # signs with a meaning in specs of data
_MARKS = {"base": ("model_index.json", "lora.json"), "control": ("config.json",)}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Entry:
    """path: what a loader takes. facts: what clients are told beside the name. files: of a base,
    what else it is read from.
    """

    name: str
    path: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Catalogue:
    """By their names. The first base is the default. What the server itself makes, trained controls
    and uploaded data sets, is added.
    """

    bases: Mapping[str, Entry]
    controls: MutableMapping[str, Entry]
    loras: Mapping[str, Entry]
    datasets: MutableMapping[str, Entry]

    @property
    def default(self) -> str:
        return next(iter(self.bases))

    def base(self, name: str | None) -> Entry:
        return _named("base", self.default if name is None else name, self.bases)

    def control(self, name: str) -> Entry:
        return _named("control", name, self.controls)

    def lora(self, name: str) -> Entry:
        return _named("LoRA", name, self.loras)

    def dataset(self, name: str) -> Entry:
        return _named("data set", name, self.datasets)

    def add_control(self, name: str, folder: Path) -> None:
        self.controls[name] = Entry(name, str(folder), _facts_of_control(name, folder))

    def add_dataset(self, name: str, folder: Path) -> None:
        self.datasets[name] = dataset_entry(name, folder)


# train, measure, validation: specs of data; {examples} of the first is how many at most,
# {quarter} a fourth of that, where each is taken in four views
EMBEDDED_DATA = (
    Entry(
        "playroom",
        "playroom:test",
        {
            "train": "playroom:train:{examples}",
            "measure": "playroom:test",
            "validation": "playroom:val:64",
        },
    ),
    Entry(
        "stickers",
        "stickers",
        {
            "train": "stickers?split=train&views=4&limit={quarter}",
            "measure": "stickers?split=test",
            "validation": "stickers?split=test&limit=48",
        },
    ),
)


def dataset_entry(name: str, folder: Path) -> Entry:
    """A folder of pictures with captions."""
    path = str(folder.resolve())
    return Entry(name, path, {"train": f"{path}?limit={{examples}}", "measure": path})


def _named(what: str, name: str, entries: Mapping[str, Entry]) -> Entry:
    """Raises UserError for a name that was not listed at start."""
    if name in entries:
        return entries[name]
    known_names = ", ".join(entries) or "none"
    raise UserError(f"There is no {what} {name[:80]!r} here; there is {one_sentence(known_names)}.")


def list_models(settings: ServerSettings) -> Catalogue:
    """Raises UserError for what the server is started with and is not there."""
    bases = _listed("base", (settings.base, *_embedded_bases(), *settings.bases), _base)
    first = next(iter(bases))
    bases[first] = replace(bases[first], files=settings.files)
    controls = _listed("control", (*_embedded_controls(), *settings.controls), _control)
    loras: dict[str, Entry] = {}
    for folder in settings.loras:
        loras |= _loras(folder)
    datasets = {entry.name: entry for entry in EMBEDDED_DATA}
    for folder in settings.datasets:
        datasets |= _datasets(folder)
    return Catalogue(bases, controls, loras, datasets)


def _listed(what: str, words: Sequence[str], read: Any) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for word in dict.fromkeys(words):
        entry = read(word)
        if entry.name in entries and entries[entry.name].path != entry.path:
            raise UserError(
                f"the {what}s {entries[entry.name].path} and {entry.path} have one name, "
                f"{entry.name}; rename one of them."
            )
        entries.setdefault(entry.name, entry)
    return entries


def _embedded_bases() -> list[str]:
    marks = ("model_index.json", "lora.json")
    folders = sorted(ASSETS.glob("playroom*"))
    return [p.name for p in folders if any((p / mark).is_file() for mark in marks)]


def _embedded_controls() -> list[str]:
    names: list[str] = []
    for folder in sorted(ASSETS.glob("playroom-*")):
        condition = (_config(folder / "config.json").get("zeroconv") or {}).get("condition")
        if condition is not None:
            names.append(folder.name)
    return names


def _config(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path)
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _located(word: str, what: str) -> tuple[str, Path | None]:
    """The name of what a server is started with, and its path if it is on this machine."""
    if word.startswith("playroom") and (ASSETS / word).is_dir():
        return word, ASSETS / word
    try:
        path = Path(word).expanduser()
        there = bool(word.strip()) and path.exists()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, no home
        there = False
    if there:
        if path.is_dir() and not any((path / mark).is_file() for mark in _MARKS[what]):
            marks = " or ".join(_MARKS[what])
            raise UserError(f"{path} is no {what}'s folder: it holds no {marks}.")
        return (path.resolve().name if path.is_dir() else path.stem), path.resolve()
    if _HUB_ID.fullmatch(word):
        return word, None
    raise UserError(
        f"there is no {what} {word[:200]!r}; give a folder, a weights file or a hub id."
    )


def _base(word: str) -> Entry:
    name, path = _located(word, "base")
    facts: dict[str, Any] = {"resolution": None, "kind": None}
    if path is not None and path.is_dir():
        folder = path
        if (path / "lora.json").is_file():
            below = str(_config(path / "lora.json").get("base", ""))
            folder = path.parent / below
        sample = _config(folder / "unet" / "config.json").get("sample_size")
        levels = len(_config(folder / "vae" / "config.json").get("block_out_channels") or ())
        if isinstance(sample, int) and levels:
            facts["resolution"] = sample * 2 ** (levels - 1)
        facts["kind"] = _config(folder / "model_index.json").get("_class_name")
    return Entry(name, word if path is None or path.parent == ASSETS else str(path), facts)


def _control(word: str) -> Entry:
    name, path = _located(word, "control")
    if path is None:
        return Entry(name, word, _facts_of_control(name, Path()))
    facts = _facts_of_control(name, path)
    if path.parent != ASSETS:
        return Entry(name, str(path), facts)
    name = str(facts["condition"] or name)
    return Entry(name, word, {**facts, "label": name.capitalize()})


def _facts_of_control(name: str, path: Path) -> dict[str, Any]:
    config = _config(path / "config.json") if path.is_dir() else {}
    ours = config.get("zeroconv")
    ours = ours if isinstance(ours, dict) else {}
    condition = known(str(ours.get("condition") or name))
    kinds = config.get("num_control_type")
    return {
        "condition": None if condition is None else condition.name,
        "label": name,
        "base": ours.get("base"),
        "union_kinds": list(kind_names(kinds)) if isinstance(kinds, int) and kinds < 64 else None,
    }


def _loras(folder: Path) -> dict[str, Entry]:
    if not folder.is_dir():
        raise UserError(f"--lora-dir {folder} is no folder.")
    from zeroconv.checkpoints.reading import WEIGHT_FILES  # loads torch

    files = sorted(p for p in folder.rglob("*") if p.name.endswith(WEIGHT_FILES) and p.is_file())
    names = {str(p.relative_to(folder).with_suffix("")).replace("\\", "/"): p for p in files}
    return {name: Entry(name, str(path.resolve())) for name, path in names.items()}


def _datasets(folder: Path) -> dict[str, Entry]:
    """The folder's subfolders, or itself where it holds files."""
    if not folder.is_dir():
        raise UserError(f"--datasets {folder} is no folder.")
    below = [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    holds_files = any(p.is_file() for p in folder.iterdir())
    listed = [folder] if holds_files else below
    for path in listed:
        if any(sign in str(path.resolve()) for sign in _OF_SPECS):
            raise UserError(f"the data set {path} has one of {_OF_SPECS} in its path; rename it.")
    return {p.name: dataset_entry(p.name, p) for p in listed}
