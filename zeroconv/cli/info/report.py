"""What `zeroconv info` says about a model: read from its files, with nothing of it loaded that
is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zeroconv.errors import UserError

TRANSFORMER_CONTROLS = (
    "flux_control",
    "chroma_control",
    "sd3_control",
    "qwen_control",
    "z_image_control",
)
FLOWS = ("flux", "chroma", "sd3", "qwen", "z_image")  # as files
KNOWN = (
    *TRANSFORMER_CONTROLS,
    *("base", "control", "baseline", "lora", "vae", "tiny_vae"),
    *("union", "control_lora", "t2i_adapter", "controlnet_xs", "lllite", "ip_adapter"),
)


def describe(name: str, files: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Facts about a base model, a control or a condition: kind, parameters, connections, licence,
    card. Of a picture: how it was made. files: of a base, see `base_files`.

    Raises:
        UserError: nothing is there under that name, or it is no model.
    """
    from zeroconv.backbones.loading.locate import locate
    from zeroconv.cli.info.adapters import describe_ip_adapter, describe_lllite
    from zeroconv.cli.info.controls import (
        describe_adapter,
        describe_transformer_control,
        describe_xs,
    )
    from zeroconv.cli.info.files import (
        describe_base_file,
        describe_lora,
        describe_tiny_vae,
        describe_vae,
    )
    from zeroconv.cli.info.flows import describe_flow_file
    from zeroconv.cli.info.pictures import describe_picture, is_picture

    files = files or {}
    if files:
        return _read_base(name, files)
    if (entry := _condition(name)) is not None:
        return entry
    if is_picture(name):
        return describe_picture(Path(name))
    path = locate(name, "model")
    kind = _kind(path)
    readers = {
        "control": _control,
        **dict.fromkeys(TRANSFORMER_CONTROLS, describe_transformer_control),
        **dict.fromkeys(FLOWS, describe_flow_file),
        "union": _control,
        "control_lora": _control,
        "t2i_adapter": describe_adapter,
        "controlnet_xs": describe_xs,
        "baseline": _baseline,
        "lora": describe_lora,
        "vae": describe_vae,
        "tiny_vae": describe_tiny_vae,
        "lllite": describe_lllite,
        "ip_adapter": describe_ip_adapter,
    }
    if kind == "base":
        report = describe_base_file(path) if path.is_file() else _backbone(name, {})
    else:
        report = readers[kind](path)
    return {"name": name, "kind": kind, "path": str(path), **report, **_card(path)}


def _condition(name: str) -> dict[str, Any] | None:
    """Facts about a condition, where `name` is one of its names and no file; the networks that
    read it, by licence.
    """
    from zeroconv.annotators import LEARNED
    from zeroconv.conditions import find

    if Path(name).exists():
        return None
    try:
        entry = find(LEARNED[name].condition if name in LEARNED else name)
    except UserError:
        return None
    return {
        "name": entry.name,
        "kind": "condition",
        "meaning": entry.meaning,
        "channels": entry.channels,
        "parameters": entry.defaults,
        "resized": entry.resize,
        "also_called": ", ".join(entry.aliases),
        "without_weights": entry.draw is not None,
        "licence": entry.licence,
        "networks": {
            a.name: f"{a.source}; licence: {a.licence}"
            for a in LEARNED.values()
            if a.condition == entry.name
        },
    }


def _kind(path: Path) -> str:
    """One of `KNOWN`, read off the files. UserError says what anything else is."""
    from zeroconv.checkpoints.identify import identify
    from zeroconv.checkpoints.kinds import UNKNOWN
    from zeroconv.checkpoints.lora import BASE

    kind = identify(path)
    if kind.name in KNOWN or (kind.name in FLOWS and path.is_file()):
        return kind.name
    if kind is UNKNOWN and path.is_dir():
        raise UserError(
            f"the folder {path} is no model: it holds neither model_index.json (a base) nor "
            f"config.json (a control) nor {BASE} (a LoRA and the name of its base)"
        )
    raise UserError(f"{path} is {kind}; info knows bases, controls, baselines, LoRAs and VAEs.")


def _count(*modules: Any) -> int:
    return sum(p.numel() for module in modules if module is not None for p in module.parameters())


def _connections(connections: Any) -> list[dict[str, Any]]:
    return [{"name": c.name, "channels": c.channels, "scale": c.scale} for c in connections]


def _read_base(name: str, files: Mapping[str, Any]) -> dict[str, Any]:
    """A base of a revision, variant or subfolder. Raises UserError for what is no such base."""
    facts = {"name": name, "kind": "base", **files}
    return {**facts, **_backbone(name, files)}


def _backbone(name: str, files: Mapping[str, Any]) -> dict[str, Any]:
    from zeroconv.backbones import is_split, load_backbone

    backbone = load_backbone(name, **files)
    main = "unet" if is_split(backbone) else "transformer"
    parts = {main: [backbone.denoiser], "vae": [backbone.vae], "text": backbone.text_encoders}
    return {
        "parameters": {part: _count(*modules) for part, modules in parts.items()},
        "picture_size": backbone.default_size,
        "latent": {"channels": backbone.latent_channels, "pixels": backbone.latent_scale},
        "prediction": backbone.prediction_type,
        "connections": _connections(backbone.connections),
    }


def _control(path: Path) -> dict[str, Any]:
    from zeroconv.checkpoints.controls.control_lora import rank_of
    from zeroconv.checkpoints.controls.file import POOLED, read_control
    from zeroconv.conditions.union import names

    control = read_control(path)
    ours = control.config.get("zeroconv") or {}
    report = {
        "parameters": {"control": sum(value.numel() for value in control.state.values())},
        "condition": ours.get("condition"),
        "base": ours.get("base"),
        "hint_channels": control.config.get("conditioning_channels") or 3,
        "hint_encoder": ours.get("hint_encoder", "released"),
        "connection_kind": ours.get("connections", "zero"),
        "only_mid_control": ours.get("only_mid_control", False),
        "global_average_pooling": bool(control.config.get(POOLED, False)),
        "difference_to_its_base": control.difference,
        "trained": ours.get("trained"),
    }
    if "num_control_type" in control.config:
        report["kinds_of_hints"] = names(control.config["num_control_type"])
    if control.low_rank:
        report["rank"] = rank_of(control.state)
        return {**report, "notes": _notes(control)}
    return {
        **report,
        "connections": _connections(_load(path, control).connections),
        "notes": _notes(control),
    }


def _load(path: Path, control: Any) -> Any:
    """The network itself: a control that is described is one that loads. A difference is taken
    as it is.
    """
    import torch

    from zeroconv.control import ControlNet
    from zeroconv.control.files import build_control

    return build_control(ControlNet, control.config, control.state, path, torch.float32)


def _notes(control: Any) -> str:
    """What to know before it is used."""
    from zeroconv.checkpoints.controls.file import POOLED

    notes = []
    if control.difference:
        notes.append(
            "holds the difference to its base, whose weights are added when both are loaded"
        )
    if control.low_rank:
        notes.append(
            "needs the base that it was made from, whose encoder its updates are added to as both "
            "are loaded"
        )
    if "num_control_type" in control.config:
        notes.append("needs a kind for each hint: Control(net, hint, kind=…), NAME:KIND=PICTURE")
    if control.pooled_by_name:
        notes.append(
            f"residuals are averaged because its name says shuffle; {POOLED} in a config.json says "
            "otherwise"
        )
    if (channels := control.config.get("conditioning_channels") or 3) != 3:
        notes.append(f"reads hints of {channels} channels: tensors from Python, as a picture has 3")
    return "; ".join(notes)


def _baseline(path: Path) -> dict[str, Any]:
    """Read off its folder: to build it, the base would be needed."""
    from zeroconv.checkpoints.reading import read_config, read_weights

    config = read_config(path)
    ours = config.get("zeroconv") or {}
    return {
        "parameters": {"trained": sum(value.numel() for value in read_weights(path).values())},
        "condition": ours.get("condition"),
        "base": ours.get("base"),
        "network": config.get("kind"),
        "options": config.get("options"),
    }


def _card(path: Path) -> dict[str, Any]:
    """The licence and the path of the card, from the README.md a model folder carries."""
    card = path / "README.md"
    if not card.is_file():
        return {"licence": None, "card": None}
    return {
        "licence": _licence(card.read_text(encoding="utf-8", errors="replace")),
        "card": str(card),
    }


def _licence(text: str) -> str | None:
    """What a card says of its licence: the rest of a `Licence:` line, or the first paragraph
    under such a heading.
    """
    match = re.search(
        r"^[-* ]*licen[cs]es?\**:\**[ \t]*(\S.*)$", text, re.IGNORECASE | re.MULTILINE
    )
    if not match:
        match = re.search(
            r"^#+ *licen[cs]es?[^\n]*\n+((?:[^\n]+\n?)+)", text, re.IGNORECASE | re.MULTILINE
        )
    return " ".join(match[1].split()) if match else None


def reckoned(
    name: str,
    size: int | None,
    controls: int,
    count: int,
    dtype: str,
    offload: str,
    quantise: str | None,
    vae_tiling: bool,
) -> dict[str, Any]:
    """What pictures of a base take of the device's memory, in GB; nothing is loaded."""
    from zeroconv.backbones.devices import dtype_name, pick_device, pick_dtype
    from zeroconv.generation.memory import reckon

    numbers = pick_dtype(dtype, pick_device("auto") if dtype == "auto" else "cuda")
    sides = None if size is None else (size, size)
    need = reckon(name, sides, controls, numbers, offload, quantise, vae_tiling, count)
    return {
        "name": name,
        "kind": "memory",
        "size": size or need.size[0],
        "controls": controls,
        "pictures": count,
        "dtype": dtype_name(numbers),
        "offload": offload,
        "quantise": quantise,
        "vae_tiling": vae_tiling,
        **need.as_dict(),
    }


def show(report: dict[str, Any]) -> None:
    """Print the report for a person."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in report.items():
        if key == "parameters" and report["kind"] != "condition":
            value = ", ".join(f"{part} {count:,}" for part, count in value.items())
        elif key == "connections":
            value = " ".join(f"{c['name']}:{c['channels']}/{c['scale']}" for c in value)
            key = "connections (name:channels/scale)"
        elif isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        if value not in (None, ""):
            table.add_row(f"[bold]{key.replace('_', ' ')}[/bold]", escape(str(value)))
    console = Console(soft_wrap=False)
    if not console.is_terminal:  # a file has no edge at which paths would be cut off
        console.width = 100_000
    console.print(table)
