"""What a picture says of its making, by the words in its file, as values of generate's options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zeroconv.cli.generate.adapters import AdapterSpec
from zeroconv.cli.generate.controls import ControlSpec, checked_spec
from zeroconv.cli.generate.making import Batch, machine
from zeroconv.errors import UserError
from zeroconv.pictures import resize_mode
from zeroconv.pictures.carried import carried

# what belongs to a control, once for each
OF_CONTROLS = (
    "control",
    "scale",
    "weight",
    "start",
    "end",
    "mode",
    "region",
    "resize_mode",
    "passes",
)
# what belongs to an image prompt or a reference
OF_ADAPTERS = (
    "image_prompt",
    "image_encoder",
    *(f"image_prompt_{name}" for name in ("scale", "start", "end", "region")),
    "reference",
    *(f"reference_{name}" for name in ("fidelity", "scale", "start", "end")),
)
GIVEN = ("image", "mask")  # kept as pictures; a mask without an image is a region
# what changes nothing in a picture
FREE = ("out", "json", "again", "device", "count")
MOST_BATCH = 1024


@dataclass
class Again:
    """What a picture says. values: by the names of generate's options. notes: on what is not
    read.
    """

    path: Path
    values: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    specs: list[ControlSpec] = field(default_factory=list)
    adapters: list[AdapterSpec] = field(default_factory=list)
    batch: Batch | None = None
    made_with: Mapping[str, Any] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)  # image, mask → name and picture


def read_again(path: Path) -> Again:
    """What the picture at `path` says, by zeroconv's words, else A1111's or ComfyUI's.

    Raises UserError where it says nothing, or what is damaged.
    """
    from zeroconv.generation.metadata.record import read_foreign, read_info

    if "zeroconv" not in carried(path):
        reading = read_foreign(path)
        values = {k: v for k, v in reading.values.items() if v is not None}
        notes = [f"{reading.program}'s words are read: {one}" for one in reading.notes]
        return Again(path, _as_given(values, path), notes)
    about = read_info(path)
    try:
        return _ours(about, path)
    except UserError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{path} carries damaged words on how it was made ({error}).") from error


def _ours(about: Mapping[str, Any], path: Path) -> Again:
    if (command := about.get("command", "generate")) != "generate":
        raise UserError(
            f"{path} was made by zeroconv {str(command)[:40]}; give that command again."
        )
    # pictures of older versions keep no options, only the request itself
    top = ("guidance cfg steps seed scheduler schedule eta guidance_rescale noise fast engine "
           "negative base lora vae tiny_vae parts revision variant subfolder dtype width "
           "height").split()  # fmt: skip
    values = {**dict(about.get("options") or {}), **{k: about[k] for k in top if k in about}}
    left_out = (*OF_CONTROLS, *OF_ADAPTERS, *GIVEN)
    values = {k: v for k, v in values.items() if v is not None and k not in left_out}
    values["prompt"] = [about["prompt"]]
    again = Again(path, _as_given(values, path))
    again.specs, again.adapters = _specs(about, path), _adapters(about, path)
    again.batch = _batch(about.get("batch"))
    for name in GIVEN:
        if about.get(name) is not None and name not in about["inputs"]:
            raise UserError(f"{path} does not hold its {name}, which was too large; give --{name}.")
        if about.get(name) is not None:
            again.given[name] = (str(about[name]), about["inputs"][name])
    again.made_with = dict(about.get("made_with") or {})
    if (old := about.get("device")) not in (None, "cpu"):
        again.notes.append(f"it was made on {str(old)[:40]}; elsewhere its numbers are rounded "
                           "otherwise")  # fmt: skip
    again.notes += _other_machine(again.made_with)
    return again


def _as_given(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Values as words of a command line, so that they are checked as such. Raises UserError."""
    plain = {}
    for name, value in values.items():
        several = value if isinstance(value, list) else [value]
        if not all(isinstance(one, bool | int | float | str) for one in several):
            raise UserError(f"{path} carries no value of {name}, but {str(value)[:80]}.")
        words = [one if isinstance(one, bool) else str(one) for one in several]
        plain[name] = words if isinstance(value, list) else words[0]
    return plain


def _specs(about: Mapping[str, Any], path: Path) -> list[ControlSpec]:
    controls, hints = list(about.get("controls") or []), about["hints"]
    if len(hints) != len(controls):
        raise UserError(
            f"{path} does not hold the hints of its {len(controls)} controls, which were too large "
            "for it; give --control NAME=PICTURE and its other options without --from."
        )
    specs = []
    for i, (control, hint) in enumerate(zip(controls, hints, strict=True)):
        fields = {name: control.get(name) for name in ("mode", "mask", "resize")}
        scale = control.get("scale", control.get("weight"))
        words = [control["name"], control["picture"], *(v for v in fields.values() if v)]
        if not all(isinstance(word, str) for word in words):
            raise UserError(f"{path} carries a control that is damaged: {str(control)[:80]}.")
        mask = about["inputs"].get(f"mask {i}")
        if fields["mask"] and mask is None:
            raise UserError(f"{path} does not hold the mask {fields['mask']}; give --region.")
        specs.append(
            checked_spec(
                ControlSpec(
                    control["name"],
                    Path(control["picture"]),
                    bool(control.get("drawn")),
                    _number(scale, path),
                    _number(control.get("start", 0.0), path),
                    _number(control.get("end", 1.0), path),
                    fields["mode"],
                    Path(fields["mask"]) if fields["mask"] else None,
                    resize_mode(fields["resize"]) if fields["resize"] else None,
                    kept=hint,
                    kept_mask=mask,
                    passes=str(control.get("passes") or "both"),
                    of_image=bool(control.get("of_image")),
                )
            )
        )
    return specs


def _adapters(about: Mapping[str, Any], path: Path) -> list[AdapterSpec]:
    """The image prompts and references, with the pictures that the file carries."""
    specs = []
    for i, one in enumerate(about.get("adapters") or []):
        words = {name: one.get(name) for name in ("adapter", "encoder", "region", "sha256")}
        several = (one["picture"], *filter(None, words.values()))
        if not all(isinstance(word, str) for word in several):
            raise UserError(f"{path} carries an image prompt that is damaged: {str(one)[:80]}.")
        region = words["region"]
        fidelity = one.get("fidelity")
        specs.append(
            AdapterSpec(
                Path(one["picture"]),
                words["adapter"],
                scale=_number(one.get("scale", 1.0), path),
                start=_number(one.get("start", 0.0), path),
                end=_number(one.get("end", 1.0), path),
                region=Path(region) if region else None,
                fidelity=None if fidelity is None else _number(fidelity, path),
                encoder=words["encoder"],
                kept=about["inputs"].get(f"adapter {i}"),
                kept_region=about["inputs"].get(f"adapter region {i}"),
                recorded=words["sha256"],
            )
        )
    return specs


def _number(value: Any, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(
            f"{path} carries a control or a picture to read whose strength or window is no number."
        )
    return float(value)


def _batch(stored: Any) -> Batch | None:
    """Raises UserError or what `read_again` turns into one."""
    if stored is None:
        return None
    prompts, seeds = list(stored["prompts"]), list(stored["seeds"])
    numbers = [int(stored[name]) for name in ("row", "first_seed", "total", "first")]
    batch = Batch([str(p) for p in prompts], [int(s) for s in seeds], *numbers)
    count = len(batch.prompts)
    inside = 0 <= batch.row < count and 0 <= batch.first <= batch.first + count <= batch.total
    if len(batch.seeds) != count or count > MOST_BATCH or not inside or batch.total > 100_000:
        raise ValueError("its batch does not fit together")
    return batch


def _other_machine(made_with: Mapping[str, Any]) -> list[str]:
    here = machine() if made_with else {}
    names = [n for n in ("torch", "machine", "threads") if n in made_with]
    differ = [f"{n} {str(made_with[n])[:40]}, here {here[n]}" for n in names
              if str(made_with[n]) != str(here[n])]  # fmt: skip
    if not differ:
        return []
    return [f"it was made with {'; '.join(differ)}: single pixels can differ by a level"]
