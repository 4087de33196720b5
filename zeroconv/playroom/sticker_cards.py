"""The data card of a sticker folder: every source with its version, licence, attribution and
counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from zeroconv.playroom.sticker_records import SPLITS, Sticker, write_text
from zeroconv.playroom.sticker_sources import NAME_PACKAGES, SOURCES

_LICENCE_NAMES = {
    "MIT": "MIT License (https://spdx.org/licenses/MIT.html)",
    "Apache-2.0": "Apache License 2.0 (https://www.apache.org/licenses/LICENSE-2.0)",
    "CC-BY-4.0": "Creative Commons Attribution 4.0 International (https://creativecommons.org/licenses/by/4.0/legalcode)",
}


def write_card(
    folder: Path,
    stickers: Sequence[Sticker],
    versions: Mapping[str, str | None],
    modules: Path | None,
    about: str = "",
) -> None:
    """Write README.md and licences/ for the stickers of a folder; `versions` maps a source to its
    package's version.
    """
    for name in versions:
        write_text(folder / "licences" / f"{name}.txt", licence_text(name, modules))
    for package in NAME_PACKAGES:
        text = _shipped_licence(modules, package)
        if text:
            write_text(folder / "licences" / f"{package}.txt", text)
    write_text(folder / "README.md", card_text(stickers, versions, about or _ABOUT))


def licence_text(source: str, modules: Path | None = None) -> str:
    """The licence of a source's art: the text its package ships, else our copy of it with the
    holder's name.
    """
    art = SOURCES[source]
    head = f"{art.attribution}\nArt project: {art.project}\nPackage: npm {art.package}\n"
    head += f"Licence: {art.licence}, "
    head += f"{_LICENCE_NAMES.get(art.licence, 'see https://spdx.org/licenses/')}\n\n"
    shipped = _shipped_licence(modules, art.package)
    if shipped:
        return head + shipped
    path = files("zeroconv.playroom") / "sticker_licences" / f"{art.licence}.txt"
    return head + (
        path.read_text(encoding="utf-8").replace("{holder}", art.holder) if path.is_file() else ""
    )


def _shipped_licence(modules: Path | None, package: str) -> str | None:
    for path in sorted((modules / package).glob("LICEN[SC]E*")) if modules else ():
        if path.is_file():
            return path.read_text(encoding="utf-8", errors="replace")
    return None


_ABOUT = """Emoji drawings of openly licensed art projects, rendered from their SVGs as RGBA PNGs:
tight, centred, with the alpha kept. No flags, no skin-tone variants, no drawing twice in one style.
Made by `zeroconv playroom stickers`; a second run draws only what is missing."""


def card_text(stickers: Sequence[Sticker], versions: Mapping[str, str | None], about: str) -> str:
    """The card in Markdown, with counts by source, split and group."""
    groups = Counter(s.group for s in stickers)
    return "\n".join(
        [
            "# Stickers",
            "",
            about,
            "",
            f"{len(stickers)} pictures of {len({s.concept for s in stickers})} concepts.",
            "",
            "| source | package | licence | style | train | val | test |",
            "|---|---|---|---|---|---|---|",
            *_source_rows(stickers, versions),
            "",
            "| group | pictures |",
            "|---|---|",
            *(f"| {group} | {number} |" for group, number in groups.most_common()),
            "",
            "## Attribution",
            "",
            *(
                f"- {art.attribution} {art.project}"
                for name, art in SOURCES.items()
                if name in versions
            ),
            "- Names, groups and tags: npm `unicode-emoji-json` (MIT, copyright (c) Mu-An Chiou) "
            "and `emojibase-data` (MIT, copyright (c) Miles Johnson), after Unicode data "
            "(https://www.unicode.org/license.txt).",
            "",
            "The licence texts are in `licences/`; a picture keeps its source's licence "
            "(`licence` in the metadata).",
            "",
            "## Fields and splits",
            "",
            "`metadata.jsonl` has a line a picture: `file_name`, `text` (caption), `concept` "
            "(Unicode slug), `name` (noun phrase), `style`, `group`, `subgroup`, `source`, "
            "`licence`, `split`, `tags`.",
            "The split is by concept, never by picture: a hash of the concept, with gender, "
            "direction and clock hour taken out, gives train 90 %, val 5 %, test 5 %, and every "
            "style of a concept is in the same split.",
            "",
        ]
    )


def _source_rows(stickers: Sequence[Sticker], versions: Mapping[str, str | None]) -> list[str]:
    """A row of the table a source, with its pictures in each split."""
    count = Counter((s.source, s.split) for s in stickers)
    return [
        f"| {name} | {art.package} {versions[name] or '?'} | {art.licence} | {art.style} | "
        + " | ".join(str(count[name, split]) for split in SPLITS)
        + " |"
        for name, art in SOURCES.items()
        if name in versions
    ]
