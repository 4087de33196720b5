"""What `zeroconv info` says about diffusion transformers in one file: read off names and shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def describe_flow_file(path: Path) -> dict[str, Any]:
    """Facts about a base in one file, and what it needs beside itself. Raises UserError."""
    from zeroconv.backbones.loading.flow import FAMILIES
    from zeroconv.checkpoints.float8 import without_scales
    from zeroconv.checkpoints.flow.file import is_original, read_flow, to_diffusers
    from zeroconv.checkpoints.flow.infer import CONFIGS
    from zeroconv.checkpoints.flow.text_files import NAMES
    from zeroconv.checkpoints.stable_diffusion import describing
    from zeroconv.cli.info.files import dtypes, numbers

    file = read_flow(path)
    family = FAMILIES[file.class_name]
    plain = without_scales(file.transformer)
    with describing(path):
        config = CONFIGS[file.class_name](to_diffusers(plain, file.kind.name, path))
    parts = {"transformer": file.transformer, **file.texts, "vae": file.vae}
    texts = {part.kind: part.optional for part in family.texts if part.kind not in file.texts}
    needs = [f"{NAMES[k][0]}{' (may be missing)' if may else ''}" for k, may in texts.items()]
    needs += [] if file.vae else ["a VAE (or --vae FILE)"]
    needs.append("tokenizers")
    blocks = {name: value for name, value in config.items() if name.endswith("layers")}
    return {
        "family": family.backbone.family,
        "parameters": {name: numbers(state) for name, state in parts.items() if state},
        "stored_as": dtypes(tensor for state in parts.values() for tensor in state.values()),
        "names": "the original ones" if is_original(plain, file.kind.name) else "diffusers'",
        "blocks": {name.removeprefix("num_"): value for name, value in blocks.items()},
        "reads": _reads(config),
        "reads_guidance": config.get("guidance_embeds"),
        "needs": f"{', '.join(needs)}: beside it, or --parts FOLDER",
    }


def _reads(config: dict[str, Any]) -> str | None:
    """What FLUX Control and FLUX Fill read beside their noise."""
    reads, gives = config["in_channels"], config.get("out_channels") or config["in_channels"]
    if "num_single_layers" not in config or reads == gives:
        return None
    if reads == 2 * gives:
        return "a hint beside its noise (FLUX Control): --control FILE=hint.png"
    return "a picture and its mask beside its noise (FLUX Fill): --image, --mask"
