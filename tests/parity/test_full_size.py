"""At the size of Stable Diffusion 1.5, 2.1 and XL, random weights, connections that are not zero
(`make parity`).

One model at a time, about 7 GB in float32, XL 18 GB. PARITY_JSON names the file of the README's
table, if it is to be written.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import psutil
import pytest
import torch

from tests.helpers.stable_diffusion import SD15, SD21, SDXL
from tests.helpers.tiny import randomise_
from tests.parity.compare import TOLERANCE, compare
from zeroconv.backbones import TextStates, UNetBackbone
from zeroconv.control import ControlNet
from zeroconv.control.files import diffusers_state
from zeroconv.files import atomic_write

pytestmark = pytest.mark.parity
MODELS = {
    "Stable Diffusion 1.5": (SD15, 361_279_120),
    "Stable Diffusion 2.1": (SD21, 364_228_240),
    "Stable Diffusion XL": (SDXL, 1_251_014_160),
}
NOTE = (
    "Against diffusers' UNet2DConditionModel and ControlNetModel at 256 pixels. Whole generations "
    "of 20 steps against StableDiffusionControlNetPipeline (`both`, windows, `guess`; DDIM, Euler, "
    "DPM++ 2M Karras, UniPC; ε and v) agree to 1e-3 a pixel in `make test`, at tiny width."
)


@pytest.mark.parametrize("name", MODELS)
def test_residuals_and_output_equal_diffusers(name: str) -> None:
    from diffusers import ControlNetModel, UNet2DConditionModel

    config, size = MODELS[name]
    needed = 18 if config is SDXL else 7
    if free_memory() < needed * 1e9:
        pytest.skip(f"{name} wants {needed} GB of free memory")
    torch.manual_seed(0)
    backbone = UNetBackbone(UNet2DConditionModel(**config), name="full size")
    control = randomise_(ControlNet.from_backbone(backbone), scale=0.03).requires_grad_(False)
    assert sum(p.numel() for p in control.parameters()) == size
    with torch.device("meta"):
        theirs = ControlNetModel.from_unet(backbone.unet, load_weights_from_unet=False)
    assert sum(p.numel() for p in theirs.parameters()) == size
    # the same memory: nothing is copied
    theirs.load_state_dict(diffusers_state(control), assign=True)
    z, hint = torch.randn(1, 4, 32, 32), torch.rand(1, 3, 256, 256)
    text = TextStates(torch.randn(1, 77, config["cross_attention_dim"]))
    if config is SDXL:  # the summary of its second text encoder, and sizes and places of crops
        text = TextStates(
            text.hidden, torch.randn(1, 1280), torch.tensor([[256.0, 256, 0, 0, 256, 256]])
        )
    errors = compare(backbone, control, theirs.eval(), z, hint, torch.tensor([601]), text)
    print({name: f"{error:.1e}" for name, error in errors.items()})
    assert len(errors) == len(backbone.connections) + 1
    assert max(errors.values()) <= TOLERANCE, errors
    record(name, size, errors)


def free_memory() -> float:
    """Bytes that this process may still take: of the machine, or of the container it is in."""
    free = float(psutil.virtual_memory().available)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and (most := limit.read_text().strip()).isdigit():
        free = min(free, int(most) - int(used.read_text()))
    return free


def record(name: str, size: int, errors: dict[str, float]) -> None:
    """Put the largest errors into the table's row of this model."""
    if not (path := os.environ.get("PARITY_JSON")):
        return
    known = (
        json.loads(Path(path).read_text(encoding="utf-8"))["rows"] if Path(path).is_file() else []
    )
    rows = {row[0]: row for row in known}
    connections = max(error for connection, error in errors.items() if connection != "output")
    title = f"{name}, full size ({size:,} parameters of the ControlNet)"
    rows[title] = [
        title,
        *(f"{error:.0e}" if error else "0" for error in (connections, errors["output"], TOLERANCE)),
    ]
    result = {
        "columns": [
            "largest relative error, float32, random non-zero connections",
            "residuals",
            "output",
            "allowed",
        ],
        "rows": [rows[title] for title in sorted(rows)],
        "command": "PARITY_JSON=benchmarks/results/parity.json make parity",
        "note": NOTE,
    }
    with atomic_write(Path(path)) as temporary:
        temporary.write_text(
            json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
