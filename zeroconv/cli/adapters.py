"""The words of `--image-prompt` and `--reference`: which pictures, how strongly, when and where."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zeroconv.cli.controls import is_picture, one_each
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

    def described(self) -> dict[str, Any]:
        """As the report and the PNG carry it."""
        fields = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}
        return {key: value for key, value in fields.items() if value is not None}


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


def load_adapters(specs: Sequence[AdapterSpec], backbone: Any) -> list[Any]:
    """What `generate(adapters=…)` takes; an adapter or an image encoder is read once."""
    from zeroconv.adapters import ImageEncoder, IPAdapter
    from zeroconv.generation import ImagePrompt, ReferencePicture
    from zeroconv.pictures import open_mask

    encoders: dict[str, Any] = {}
    adapters: dict[str, Any] = {}
    made: list[Any] = []
    for spec in specs:
        window = {"scale": spec.scale, "start": spec.start, "end": spec.end}
        if spec.adapter is None:
            fidelity = 0.5 if spec.fidelity is None else spec.fidelity
            made.append(ReferencePicture(spec.picture, fidelity, **window))
            continue
        if spec.encoder is not None and spec.encoder not in encoders:
            encoders[spec.encoder] = ImageEncoder.load(spec.encoder, backbone.dtype)
        if spec.adapter not in adapters:
            encoder = None if spec.encoder is None else encoders[spec.encoder]
            adapters[spec.adapter] = IPAdapter.load(
                spec.adapter, backbone=backbone, image_encoder=encoder
            )
        region = None if spec.region is None else open_mask(spec.region)
        made.append(ImagePrompt(adapters[spec.adapter], spec.picture, **window, region=region))
    return made
