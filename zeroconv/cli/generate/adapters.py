"""The words of `--image-prompt` and `--reference`: which pictures, how strongly, when and where."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from zeroconv.cli.generate.controls import is_picture, one_each
from zeroconv.errors import UserError
from zeroconv.words import cut, exists, expand


@dataclass(frozen=True)
class AdapterSpec:
    """One `--image-prompt`, or a `--reference`, which has no adapter but a fidelity."""

    picture: Path
    adapter: str | None = None
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    region: Path | None = None
    fidelity: float | None = None
    encoder: str | None = None
    # the pictures opened, or those that a picture of --from carries
    kept: Image.Image | None = None
    kept_region: Image.Image | None = None
    # of the adapter's file: its checksum, and that of the file the picture of --from was made with
    sha256: str | None = None
    recorded: str | None = None

    def described(self) -> dict[str, Any]:
        """As the report and the PNG carry it."""
        left_out = ("kept", "kept_region", "recorded")
        fields = {k: str(v) if isinstance(v, Path) else v for k, v in vars(self).items()}
        return {k: v for k, v in fields.items() if v is not None and k not in left_out}


def parse_adapters(
    prompts: Sequence[str] | None,
    references: Sequence[Path] | None,
    encoder: str | None = None,
    **columns: Sequence[Any] | None,
) -> list[AdapterSpec]:
    """Read every image prompt and reference; what belongs to one comes once for all, or once for
    each. columns: image_prompt_scale, _start, _end, _region and reference_scale,
    reference_start, reference_end, reference_fidelity. Raises UserError.
    """
    specs = []
    if encoder is not None and not prompts:
        raise UserError("--image-encoder belongs to --image-prompt, and none is given.")
    pairs = [parse_image_prompt(text) for text in prompts or ()]
    for i, (adapter, picture) in enumerate(pairs):
        settings = _settings_of("image-prompt", i, len(pairs), columns, {"region": None})
        specs.append(AdapterSpec(Path(picture), adapter, **settings, encoder=encoder))
    pictures = [Path(expand(str(path))) for path in references or ()]
    for i, path in enumerate(pictures):
        settings = _settings_of("reference", i, len(pictures), columns, {"fidelity": 0.5})
        specs.append(AdapterSpec(path, **settings))
    for name in ("image-prompt", "reference"):
        if not (pairs if name == "image-prompt" else pictures):
            _settings_of(name, 0, 0, columns, {"region": None, "fidelity": 0.5})
    return specs


def _settings_of(
    kind: str, i: int, count: int, columns: dict[str, Any], more: dict[str, Any]
) -> dict[str, Any]:
    """The settings of number i of `count` of a kind. Raises UserError for a wrong count."""
    usual = {"scale": 1.0, "start": 0.0, "end": 1.0, **more}
    needs = "--image-prompt ADAPTER=PICTURE" if kind == "image-prompt" else "--reference PICTURE"
    out = {}
    for name, default in usual.items():
        given = columns.get(f"{kind.replace('-', '_')}_{name}") or []
        option = f"--{kind}-{name}"
        if given and not count:
            raise UserError(f"{option} belongs to a picture, and none is given: add {needs}")
        values = one_each(option, given, count, default, "pictures")
        out[name] = values[i] if values else default
    if not out["start"] < out["end"]:
        raise UserError(
            f"--{kind}-start {out['start']} is not before --{kind}-end {out['end']}: it would "
            "never act"
        )
    return out


def parse_image_prompt(text: str) -> tuple[str, str]:
    """`ADAPTER=PICTURE`, or `{"adapter": ADAPTER, "picture": PICTURE}` → both. Raises UserError."""
    if text.lstrip().startswith("{"):
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            fields = None
        if isinstance(fields, dict) and set(fields) == {"adapter", "picture"}:
            adapter, picture = fields["adapter"], fields["picture"]
            if isinstance(adapter, str) and isinstance(picture, str):
                return expand(adapter), expand(picture)
    split = cut(text, "=", exists, is_picture)
    if split is None or text.lstrip().startswith("{"):
        raise UserError(
            f"--image-prompt {text!r} is not understood: write ADAPTER=PICTURE, the file of an "
            'IP-Adapter and a picture, or {"adapter": …, "picture": …}'
        )
    if split.rivals:
        warnings.warn(
            f"--image-prompt {text!r} can be read in {1 + len(split.rivals)} ways; the adapter is "
            f"taken to be {split.left!r} and the picture {split.right!r}.",
            stacklevel=2,
        )
    return expand(split.left), expand(split.right)


def changed_adapters(
    specs: Sequence[AdapterSpec], kind: str, columns: Mapping[str, Any], encoder: str | None
) -> list[AdapterSpec]:
    """A picture's own image prompts or references (`kind`: "image_prompt", "reference") with the
    options that are given. columns: as of `parse_adapters`. Raises UserError.
    """
    changed = list(specs)
    for column, values in columns.items():
        if not values:
            continue
        option, name = f"--{column.replace('_', '-')}", column.removeprefix(f"{kind}_")
        each = one_each(option, values, len(changed), None, "pictures")
        more: dict[str, Any] = {"kept_region": None} if name == "region" else {}
        changed = [
            replace(spec, **{name: value}, **more)
            for spec, value in zip(changed, each, strict=True)
        ]
    if encoder is not None:
        changed = [replace(spec, encoder=encoder) for spec in changed]
    return changed


def open_adapters(specs: Sequence[AdapterSpec]) -> list[AdapterSpec]:
    """The same with their pictures opened, their adapters' files looked up and summed. Raises
    UserError for what is not there.
    """
    from zeroconv.pictures import open_mask, open_picture

    sums = {spec.adapter: _checksum(spec) for spec in specs if spec.adapter is not None}
    opened = []
    for spec in specs:
        picture = open_picture(spec.picture) if spec.kept is None else spec.kept
        region = spec.kept_region
        if region is None and spec.region is not None:
            region = open_mask(spec.region)
        sha256 = None if spec.adapter is None else sums[spec.adapter]
        opened.append(replace(spec, kept=picture, kept_region=region, sha256=sha256))
    return opened


def pictures_of(specs: Sequence[AdapterSpec]) -> dict[str, Image.Image]:
    """The pictures of opened adapters, by the names under which a file carries them."""
    named = {f"adapter {i}": spec.kept for i, spec in enumerate(specs)}
    named |= {f"adapter region {i}": spec.kept_region for i, spec in enumerate(specs)}
    return {name: picture for name, picture in named.items() if picture is not None}


def _checksum(spec: AdapterSpec) -> str:
    """SHA-256 of an adapter's file; a note where a picture was made with another one."""
    from zeroconv.backbones.loading.locate import locate

    assert spec.adapter is not None
    try:
        path = locate(spec.adapter, "IP-Adapter")
    except UserError as error:
        if spec.recorded is None:
            raise
        raise UserError(
            f"the IP-Adapter {spec.adapter} that the picture was made with (SHA-256 "
            f"{spec.recorded[:12]}…) is not there; bring it there, or give --image-prompt "
            "ADAPTER=PICTURE."
        ) from error
    if not path.is_file():
        return ""  # `IPAdapter.load` tells what it is
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if spec.recorded is not None and spec.recorded != digest:
        warnings.warn(
            f"{path} is another file than the IP-Adapter that the picture was made with (SHA-256 "
            f"{digest[:12]}…, not {spec.recorded[:12]}…), so the picture can differ.",
            stacklevel=2,
        )
    return digest


def load_adapters(specs: Sequence[AdapterSpec], backbone: Any) -> list[Any]:
    """What `generate(adapters=…)` takes of opened adapters; an adapter or an image encoder is read
    once.
    """
    from zeroconv.adapters import ImageEncoder, IPAdapter
    from zeroconv.generation import ImagePrompt, ReferencePicture

    encoders: dict[str, Any] = {}
    adapters: dict[tuple[str, str | None], Any] = {}
    made: list[Any] = []
    for spec in specs:
        window = {"scale": spec.scale, "start": spec.start, "end": spec.end}
        if spec.adapter is None:
            fidelity = 0.5 if spec.fidelity is None else spec.fidelity
            made.append(ReferencePicture(spec.kept, fidelity, **window))
            continue
        if spec.encoder is not None and spec.encoder not in encoders:
            encoders[spec.encoder] = ImageEncoder.load(spec.encoder, backbone.dtype)
        key = spec.adapter, spec.encoder
        if key not in adapters:
            encoder = None if spec.encoder is None else encoders[spec.encoder]
            adapters[key] = IPAdapter.load(spec.adapter, backbone=backbone, image_encoder=encoder)
        made.append(ImagePrompt(adapters[key], spec.kept, **window, region=spec.kept_region))
    return made
