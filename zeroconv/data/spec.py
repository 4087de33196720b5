"""From a short text, such as "playroom:train:6000 + stickers?views=4", to a data set.

This is the one file that knows every kind of source.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qsl

from zeroconv.conditions import find
from zeroconv.data.buckets import Buckets
from zeroconv.data.dataset import Dataset
from zeroconv.data.example import Source
from zeroconv.data.reading.names import blobs_of
from zeroconv.data.remote.copies import is_address
from zeroconv.data.sources.columns import COLUMNS, Columns, Masks
from zeroconv.data.sources.generated import open_scenes, open_stickers
from zeroconv.data.sources.hub import open_hub
from zeroconv.data.sources.imagefolder import open_folder
from zeroconv.data.sources.pairs import open_pairs
from zeroconv.data.sources.shard_sets import open_remote
from zeroconv.errors import UserError
from zeroconv.inputs import at_home

_ALL = {"split", "limit", "condition", "repeat"}
_KINDS = {  # what may be said of each kind of source
    "playroom": {*_ALL, "start", "only", "style"},
    "stickers": {*_ALL, "views", "seed", "start"},
    "hub": {*_ALL, "config", "revision", *COLUMNS},
    "address": {*_ALL, "config", *COLUMNS},
    "folder": {*_ALL, "config", "hints", "masks", "links", *COLUMNS},
}
_OPTIONS = set().union(*_KINDS.values())
_MOST = {"views": 1000, "repeat": 10_000, "seed": 2**63 - 1}  # of other numbers 10⁹


def open_dataset(
    spec: str | Path | Sequence[str],
    split: str | None = None,
    limit: int | None = None,
    condition: str | None = None,
    size: int | None = None,
    buckets: Buckets | None = None,
    wordless: bool = False,
    masks: Masks | None = None,
) -> Dataset:
    """Open what a spec names; no picture is read yet.

    "playroom:SPLIT[:COUNT]"  rendered scenes of a split (train, val, test); hints of depth, normal,
                              segmentation and
    pose are exact. `?start=N` skips N; `?only=person` keeps scenes with such a thing;
    `?style=pencil` (or night) draws them so, with the captions and hints of the plain ones.
    "stickers[:FOLDER]"       emoji art: the package's sample, or a folder made by `zeroconv
                              playroom stickers`;
    `?split=train` keeps one split, `?views=4` lays each on 4 random backgrounds (`&seed=1`).
    FOLDER                    an imagefolder with metadata.jsonl, .csv or .parquet (file_name, text,
                              and
    conditioning_image for the hint), or fill50k's layout with prompt.json (source = hint, target,
    prompt). Also a folder of parquet or tar shards, as `zeroconv annotate --format` writes them, or
    one of them. What lies outside of the folder, by "..", a link or an absolute name, is refused
    unless `?links=true` allows it. Columns of other names are given as
    `?caption_column=description`, likewise image_column and conditioning_image_column. Else its
    pictures, each with captions in a .txt or .caption beside it, and hints of the same names in the
    folder that `?hints=FOLDER` names; those of a subfolder `10_cats` are taken ten times a pass.
    "hub:OWNER/NAME"          a data set of the Hugging Face hub, in one of these layouts or as the
                              hub converts it to
    parquet; `?split=test`, `?config=NAME` where it has parts, `?revision=`.
    "https://HOST/train-{00000..00009}.tar", "s3://BUCKET/SET"
    parquet or tar shards, or a folder of them, in any store that fsspec speaks to; copied
    when they are read, of which a few stay.
    Any of them may end in `?limit=N`, in `?repeat=N` (taken N times a pass of training), and in
    `?condition=pose` where its hints differ from the data set's; several are joined with " + ".
    `split` and `limit` stand in where the spec is silent; `limit` bounds the whole; `wordless`: a
    folder of pictures without any captions will do. `masks`: "mask" reads where the loss counts
    from the column or folder of masks (`?mask_column=`, `?masks=FOLDER`), "alpha" from the alpha of
    the pictures. Raises UserError for a spec that names nothing, a folder that lacks its list, or
    no example at all.

    """
    pairs = [pair for part in _parts(spec) for pair in _sources(part, split, wordless, masks)]
    sources, repeats = (tuple(column) for column in zip(*pairs, strict=True))
    _tell_mixed(sources)
    dataset = Dataset(sources, size, condition, repeats=repeats, buckets=buckets, masks=masks)
    if not len(dataset):
        raise UserError(f"the data set {spec} is empty; check its split and limit.")
    return dataset if limit is None else dataset[:limit]


def _parts(spec: str | Path | Sequence[str]) -> list[str]:
    """What is joined. A folder whose name holds a "+" is one part."""
    if isinstance(spec, Path) or (isinstance(spec, str) and os.path.isdir(spec)):
        return [str(spec)]
    if isinstance(spec, str):
        sign = " + " if " + " in spec or is_address(spec) else "+"
        return [part.strip() for part in spec.split(sign)]
    return [part for one in spec for part in str(one).split(" + ")]


def _tell_mixed(sources: Sequence[Source]) -> None:
    """A note where some sources bring hints and those of others will be drawn."""
    hinted = [getattr(source, "hinted", None) for source in sources if not source.generated]
    if True in hinted and False in hinted:
        warnings.warn(
            f"{hinted.count(True)} of the joined data sets bring hints, and those of "
            f"{hinted.count(False)} are drawn.",
            stacklevel=3,
        )


def check_masked(dataset: Dataset, spec: object) -> None:
    """Raises UserError where masks are asked for and no source can have any."""
    if dataset.masks is None or any(getattr(source, "masked", False) for source in dataset.sources):
        return
    where = "alpha channel" if dataset.masks == "alpha" else "column mask and no ?masks=FOLDER"
    raise UserError(
        f"data.masked_loss is {dataset.masks}, and the data set {spec} has no {where}; add the "
        "masks, or take the setting away."
    )


def _sources(
    part: str, split: str | None, wordless: bool = False, masks: Masks | None = None
) -> list[tuple[Source, int]]:
    """What one part of a spec names, and how often a pass takes each."""
    address, _, query = part.partition("?")
    try:
        options = dict(parse_qsl(query, keep_blank_values=True))
    except ValueError as error:
        raise UserError(f"the data spec {part[:200]!r} is not understood ({error}).") from error
    unknown = sorted(set(options) - _OPTIONS)
    if unknown:
        raise UserError(
            f"the data spec {part!r} has an unknown option {unknown[0]!r}; known: "
            f"{', '.join(sorted(_OPTIONS))}."
        )
    counts = ("limit", "views", "seed", "start", "repeat")
    numbers = {name: _number(part, name, options[name]) for name in counts if name in options}
    repeat = numbers.pop("repeat", 1)
    if not address:
        raise UserError("the data spec is empty; name a folder, playroom:train or stickers.")
    condition = find(options["condition"]).name if "condition" in options else None
    kind, _, rest = address.partition(":")
    if "style" in options and kind != "playroom":
        raise UserError(f"the data spec {part!r} names a style, which only playroom's scenes have.")
    if kind not in ("playroom", "stickers", "hub"):
        kind = "address" if is_address(address) else "folder"
    if masks != "mask" and (named := sorted({"masks", "mask_column"} & set(options))):
        raise UserError(
            f"the data spec {part!r} gives {named[0]}=, and masks are not read; set "
            "data.masked_loss: mask in the recipe, or leave it out."
        )
    if idle := sorted(set(options) - _KINDS[kind] - {"hints"}):
        raise UserError(
            f"the data spec {part!r} gives {idle[0]}=, which means nothing for this kind of data; "
            f"what it may say: {', '.join(sorted(_KINDS[kind]))}."
        )
    if "hints" in options and kind in ("playroom", "stickers", "hub"):
        raise UserError(f"the data spec {part!r} names hints=, which is for folders of pictures.")
    if kind in ("playroom", "stickers"):
        return [(_generated(kind, rest, part, options, numbers, split, condition), repeat)]
    limit = numbers.get("limit")
    if options.get("links", "false") not in ("true", "false"):
        raise UserError(
            f"the data spec {part!r} gives links as {options['links']!r}; write links=true."
        )
    columns = Columns.of(options, masks)
    if is_address(address):
        return [(_remote(address, options, limit, split, condition, columns), repeat)]
    if kind == "hub":
        return [(_on_hub(rest, options, limit, split, condition, columns), repeat)]
    home = at_home(address)
    sources = _in_folder(home, options, limit, split, condition, wordless, columns)
    return [(source, times * repeat) for source, times in sources]


def _generated(
    kind: str,
    rest: str,
    part: str,
    options: dict,
    numbers: dict,
    split: str | None,
    condition: str | None,
) -> Source:
    if kind == "stickers":
        return open_stickers(
            rest or None, options.get("split", split), condition=condition, **numbers
        )
    name, _, count = rest.partition(":")
    limit = _number(part, "count", count) if count else numbers.get("limit")
    chosen = name or options.get("split") or split or "train"
    return open_scenes(
        chosen, limit, numbers.get("start", 0), options.get("only"), condition, options.get("style")
    )


def _on_hub(
    name: str,
    options: dict,
    limit: int | None,
    split: str | None,
    condition: str | None,
    columns: Columns,
) -> Source:
    if name.count("/") != 1 or not all(name.split("/")):
        raise UserError(f"the data spec names {name!r} of the hub; write hub:OWNER/NAME.")
    version = options.get("config"), options.get("revision")
    return open_hub(name, options.get("split", split), limit, condition, columns, *version)


def _remote(
    address: str,
    options: dict,
    limit: int | None,
    split: str | None,
    condition: str | None,
    columns: Columns,
) -> Source:
    if "hints" in options:
        raise UserError(
            f"the data spec {address!r} names hints=, which shards have in a column or a file of "
            "their own."
        )
    return open_remote(
        address, options.get("split", split), limit, condition, columns, options.get("config")
    )


def _in_folder(
    folder: Path,
    options: dict,
    limit: int | None,
    split: str | None,
    condition: str | None,
    wordless: bool,
    columns: Columns,
) -> list[tuple[Source, int]]:
    hints = at_home(options["hints"]) if "hints" in options else None
    masks = at_home(options["masks"]) if "masks" in options else None
    roots = None if options.get("links") == "true" else blobs_of(folder)
    chosen, alpha = options.get("split", split), columns.masks == "alpha"
    listed = open_folder(folder, chosen, limit, condition, columns, options.get("config"), roots)
    if listed is None:
        if "split" in options:
            raise UserError(
                f"{folder} has no list and no shards that could tell a split; leave ?split= out."
            )
        return [*open_pairs(folder, hints, limit, condition, roots, wordless, masks, alpha)]
    for what, given in (("hints", hints), ("masks", masks)):
        if given is not None:
            raise UserError(
                f"{folder} has a list that names its {what}, so {what}= cannot be given beside it."
            )
    return [(listed, 1)]


def _number(part: str, name: str, value: str) -> int:
    least = 1 if name in ("limit", "views", "count", "repeat") else 0
    most = _MOST.get(name, 10**9)

    # a text of 5,000 digits is more than int() takes
    if not (
        value.isascii() and value.isdecimal() and len(value) < 20 and least <= int(value) <= most
    ):
        shown = value if len(value) <= 40 else f"{value[:39]}…"
        raise UserError(
            f"the data spec {part[:200]!r} gives {name} as {shown!r}; give a whole number from "
            f"{least} to {most:,}."
        )
    return int(value)
