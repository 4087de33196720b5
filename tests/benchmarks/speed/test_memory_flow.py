"""Recipes of diffusion transformers for cards of a size: what they say they take is what is
reckoned, it fits, and a real step takes it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import figures
from benchmarks.common import RESULTS
from benchmarks.speed import memory, memory_flow
from tools.reports import ROOT
from zeroconv.backbones import TextStates
from zeroconv.backbones.flow.flux import FluxBackbone
from zeroconv.control import new_control
from zeroconv.layers.checkpointing import find_parts, recompute_
from zeroconv.layers.fake import make_fake_
from zeroconv.layers.live_bytes import LiveBytes
from zeroconv.training.execution.memory import micro_batch, trained_path
from zeroconv.training.model import to_train_
from zeroconv.training.objective import ControlledLoss
from zeroconv.training.recipes.recipe import load_recipe

RECIPES = memory.recipes(*memory_flow.FAMILIES)
TABLE = json.loads((RESULTS / "memory_flow.json").read_text(encoding="utf-8"))
ROWS = {row[0]: row for row in TABLE["rows"]}


def test_every_flow_family_has_recipes_of_every_card_and_both_sizes() -> None:
    names = {path.stem for path in RECIPES}
    assert set(ROWS) == names
    for family in memory_flow.FAMILIES:
        assert {f"{family}-{card}gb" for card in (16, 24, 48, 80)} <= names
        assert {f"{family}-{card}gb-1024" for card in (24, 48, 80)} <= names


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_flow_recipe_says_what_is_reckoned_and_fits_its_card(path: Path) -> None:
    recipe, total = load_recipe(path), float(ROWS[path.stem][-1])
    assert recipe.data.size == (1024 if path.stem.endswith("-1024") else 512)
    assert recipe.training.offload != "none"  # else text encoders and autoencoder would be there
    assert f"# Expected: {total:.1f} GB" in path.read_text(encoding="utf-8"), (
        "run python -m benchmarks.speed.memory flow"
    )
    assert total * 1e9 < 0.93 * memory.card_of(path) * 2**30 - 0.3e9


def test_flux_of_four_blocks_takes_24_gb_and_zimage_16() -> None:
    """diffusers' script takes 58 to 60 for the first (FIELD)."""
    assert load_recipe(ROOT / "recipes" / "flux-24gb.yaml").control.blocks == 4
    assert float(ROWS["flux-24gb"][-1]) <= 24 and float(ROWS["zimage-16gb"][-1]) <= 16


def test_the_page_of_flows_shows_the_table() -> None:
    text = (ROOT / "docs" / "flows.md").read_text(encoding="utf-8")
    assert figures.rewrite(text, RESULTS) == text, "run python -m benchmarks.speed.memory flow"


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_reckoning_of_a_flow_is_todays(path: Path) -> None:
    assert memory.row(path, memory.reckon(load_recipe(path))) == ROWS[path.stem]


SMALL: dict[str, Any] = {
    "num_layers": 3,
    "num_single_layers": 4,
    "attention_head_dim": 32,
    "num_attention_heads": 4,
    "joint_attention_dim": 64,
    "pooled_projection_dim": 32,
    "axes_dims_rope": (8, 12, 12),
}


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_reckoning_of_a_flow_is_what_a_real_step_takes(checkpointing: str) -> None:
    """Tensors that are alive at the peak of a real step, counted alike; within 5%."""
    reckoned, real = (most_alive(checkpointing, fake) for fake in (True, False))
    assert reckoned == pytest.approx(real, rel=0.05)


def most_alive(checkpointing: str, fake: bool) -> int:
    from diffusers import FluxTransformer2DModel

    backbone: Any = FluxBackbone(FluxTransformer2DModel(**SMALL))
    control = new_control(backbone, blocks=2)
    to_train_(control)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    if fake:
        for module in (backbone.denoiser, control):
            make_fake_(module, mode)
    loss = ControlledLoss(backbone, control)
    if checkpointing == "full":
        for part in find_parts(trained_path(loss)):
            recompute_(part)

    def step() -> int:
        text = TextStates(torch.zeros(2, 64, 64), torch.zeros(2, 32))
        with LiveBytes() as live:
            micro_batch(loss, 2, (16, 16), text)().backward()
        return live.most

    if not fake:
        return step()
    with mode:
        return step()
