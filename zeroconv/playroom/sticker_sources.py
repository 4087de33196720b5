"""Where the sticker art comes from: npm packages of openly licensed emoji drawings, and their
Unicode names.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zeroconv.errors import UserError


@dataclass(frozen=True)
class Source:
    """One art project: the npm package that carries its SVGs, and what its licence asks us to
    say.
    """

    package: str
    version: str
    style: str
    licence: str  # SPDX identifier
    holder: str
    project: str  # home page of the art project
    attribution: str


SOURCES = {
    "fluent-emoji-flat": Source(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "fluent flat",
        "MIT",
        "Microsoft Corporation.",
        "https://github.com/microsoft/fluentui-emoji",
        "Fluent Emoji (flat), copyright (c) Microsoft Corporation, MIT licence; "
        "rasterised from the SVGs, cropped, scaled.",
    ),
    "fluent-emoji": Source(
        "@iconify-json/fluent-emoji",
        "1.2.7",
        "fluent",
        "MIT",
        "Microsoft Corporation.",
        "https://github.com/microsoft/fluentui-emoji",
        "Fluent Emoji (color), copyright (c) Microsoft Corporation, MIT licence; "
        "rasterised from the SVGs, cropped, scaled.",
    ),
    "noto": Source(
        "@iconify-json/noto",
        "1.2.9",
        "noto",
        "Apache-2.0",
        "Google Inc.",
        "https://github.com/googlefonts/noto-emoji",
        "Noto Emoji, copyright Google Inc., Apache License 2.0; rasterised from the SVGs, "
        "cropped, scaled.",
    ),
    "twemoji": Source(
        "@iconify-json/twemoji",
        "1.2.5",
        "twemoji",
        "CC-BY-4.0",
        "Twitter, Inc. and other contributors",
        "https://github.com/jdecked/twemoji",
        "Twemoji, copyright Twitter, Inc. and other contributors, CC-BY 4.0 "
        "(https://creativecommons.org/licenses/by/4.0/); rasterised from the SVGs, cropped, "
        "scaled.",
    ),
}
NAME_PACKAGES = {"unicode-emoji-json": "0.9.0", "emojibase-data": "17.0.0"}


@dataclass(frozen=True)
class Concept:
    """What a picture shows, whatever its style: one Unicode emoji without a skin tone."""

    slug: str
    label: str
    group: str
    subgroup: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Icon:
    """One drawing: the concept, the source's key in SOURCES, and its SVG markup with its view box
    (x, y, w, h).
    """

    concept: str
    source: str
    body: str
    box: tuple[float, float, float, float]


def cache_folder() -> Path:
    """Where downloaded packages are kept: `$XDG_CACHE_HOME/zeroconv/stickers`, else
    `~/.cache/zeroconv/stickers`.
    """
    return (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zeroconv" / "stickers"
    )


def find_packages(sources: Sequence[str], packages: str | os.PathLike | None = None) -> Path:
    """The `node_modules` folder that holds the packages of `sources`; npm fetches what the cache
    lacks.

    `packages` names a folder of the user's (with `node_modules` in it, or itself one); then npm is
    never called. Raises UserError for an unknown source, a package that is missing or broken, or an
    npm that is missing or fails.
    """
    for name in sources:
        if name not in SOURCES:
            raise UserError(f"unknown sticker source {name!r}; choose from {', '.join(SOURCES)}")
    wanted = {SOURCES[name].package: SOURCES[name].version for name in sources} | NAME_PACKAGES
    if packages is not None:
        folder = Path(packages)
        folder = folder / "node_modules" if (folder / "node_modules").is_dir() else folder
        missing = [name for name in wanted if not (folder / name / "package.json").is_file()]
        if missing:
            raise UserError(
                f"no npm package {missing[0]} in {folder}; run `npm install --prefix {packages} "
                f"{' '.join(missing)}`"
            )
        return folder
    folder = cache_folder() / "node_modules"
    if any(installed_version(folder, name) != version for name, version in wanted.items()):
        _npm_install(cache_folder(), [f"{name}@{version}" for name, version in wanted.items()])
    return folder


def _npm_install(prefix: Path, specs: list[str]) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(
            "npm is not installed, and the sticker art comes from npm packages; install Node.js, "
            "or give a folder that holds their node_modules with --packages"
        )
    prefix.mkdir(parents=True, exist_ok=True)
    # --ignore-scripts: the packages are data, nothing of theirs needs to run
    command = [
        npm,
        "install",
        "--prefix",
        str(prefix),
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        *specs,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = next(
            (line for line in done.stderr.splitlines() if line.startswith("npm error")),
            "npm error unknown",
        )
        raise UserError(
            f"npm could not fetch the sticker packages ({reason}); check the network, or give a "
            "folder that holds their node_modules with --packages"
        )


def installed_version(folder: Path, package: str) -> str | None:
    """The version of `package` in a node_modules folder, None if it is not there."""
    path = folder / package / "package.json"
    return str(read_json(path).get("version")) if path.is_file() else None


def read_json(path: Path, mend: str = "install its npm package again") -> Any:
    """The content of a JSON file; UserError names the file, and says how to mend it, when it is
    missing or broken.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}); {mend}") from error


def _codepoints(emoji: str) -> str:
    """'2764-1f525' for a heart on fire: lower-case hex without variation selectors, as the icon
    packages key them.
    """
    return "-".join(f"{ord(c):x}" for c in emoji if c != "\ufe0f")


def read_concepts(folder: Path) -> tuple[dict[str, Concept], dict[str, str]]:
    """Every concept by slug, in Unicode order and without flags, and the slug by code points.

    unicode-emoji-json lists no skin-tone variants, so none can enter; emojibase adds label,
    subgroup and tags.
    """
    path = folder / "unicode-emoji-json" / "data-by-emoji.json"
    names = read_json(path)
    groups = read_json(folder / "emojibase-data" / "meta" / "groups.json")
    details = read_json(folder / "emojibase-data" / "en" / "data.json")
    concepts: dict[str, Concept] = {}
    slugs: dict[str, str] = {}
    try:
        base = {_codepoints(entry["emoji"]): entry for entry in details}
        for emoji, entry in names.items():
            if entry["group"] == "Flags":
                continue
            points, slug = _codepoints(emoji), entry["slug"].replace("_", "-")
            extra = base.get(points, {})
            subgroup = groups["subgroups"].get(str(extra.get("subgroup")), "")
            group = entry["group"].lower().replace(" & ", "-").replace(" ", "-")
            label = extra.get("label", entry["name"])
            concepts[slug] = Concept(slug, label, group, subgroup, tuple(extra.get("tags", ())))
            slugs[points] = slug
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} or emojibase-data beside it has an unknown layout ({error!r})"
        ) from error
    return concepts, slugs


def read_icons(
    folder: Path, source: str, concepts: dict[str, Concept], slugs: dict[str, str]
) -> list[Icon]:
    """The drawings of one source, one a concept at most, no two the same, in the order of
    `concepts`.

    A drawing finds its concept through the package's code points, then its name, then the names
    that the other installed packages give to code points (fluent-emoji ships no code points of its
    own).
    """
    path = folder / SOURCES[source].package / "icons.json"
    data = read_json(path)
    of_source, others = _names_to_slugs(folder, slugs, source)
    try:
        entries = {name: icon for name, icon in data["icons"].items() if not icon.get("hidden")}
        entries |= {
            name: icon for name, icon in data.get("aliases", {}).items() if not icon.get("hidden")
        }
        icons: dict[str, Icon] = {}
        for name in entries:
            slug = of_source.get(name) or (name if name in concepts else others.get(name))
            if slug in concepts and slug not in icons:
                icon = _resolve(data, name)
                if icon:
                    icons[slug] = Icon(slug, source, *icon)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not an Iconify icon set ({error!r}); install the package again"
        ) from error
    unique: dict[str, Icon] = {}
    for slug in concepts:
        if slug in icons:
            unique.setdefault(_drawing_hash(icons[slug]), icons[slug])
    return list(unique.values())


def _names_to_slugs(
    folder: Path, slugs: dict[str, str], source: str
) -> tuple[dict[str, str], dict[str, str]]:
    of_source: dict[str, str] = {}
    others: dict[str, str] = {}
    for key, entry in SOURCES.items():
        path = folder / entry.package / "chars.json"
        for points, name in read_json(path).items() if path.is_file() else ():
            points = "-".join(
                part.lstrip("0") for part in points.lower().split("-") if part != "fe0f"
            )
            if points in slugs:
                (of_source if key == source else others).setdefault(name, slugs[points])
    return of_source, others


def _resolve(
    data: dict, name: str, depth: int = 0
) -> tuple[str, tuple[float, float, float, float]] | None:
    """Markup and view box of an icon or alias
    (https://iconify.design/docs/types/iconify-json.html).
    """
    if name in data["icons"]:
        icon = data["icons"][name]
        if icon.get("hidden"):
            return None
        box = [icon.get(key, data.get(key, default)) for key, default in _BOX]
        return icon["body"], (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
    alias = data.get("aliases", {}).get(name)
    parent = _resolve(data, alias["parent"], depth + 1) if alias and depth < 5 else None
    if parent is None or alias.get("rotate"):
        return None
    body, (x, y, w, h) = parent
    if alias.get("hFlip"):
        body = f'<g transform="translate({2 * x + w} 0) scale(-1 1)">{body}</g>'
    if alias.get("vFlip"):
        body = f'<g transform="translate(0 {2 * y + h}) scale(1 -1)">{body}</g>'
    return body, (x, y, w, h)


_BOX = (("left", 0), ("top", 0), ("width", 16), ("height", 16))


def _drawing_hash(icon: Icon) -> str:
    """The same for two drawings that differ in nothing but the random ids of their gradients."""
    order: dict[str, str] = {}

    def renamed(match: re.Match[str]) -> str:
        return match[1] + order.setdefault(match[2], str(len(order)))

    body = re.sub(r'(\bid="|url\(#|href="#)([^")]+)', renamed, icon.body)
    return hashlib.sha256(repr((body, icon.box)).encode()).hexdigest()
