"""What trainings of diffusion transformers hold: hints and captions computed once, frozen weights
in few bits, blocks that are moved. None of it changes what is learned.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.test_flow import SHAPES, Make, make, quiet, root  # noqa: F401
from zeroconv.backbones import load_backbone
from zeroconv.data.cache import hint_latents
from zeroconv.data.cache.text import cache_text
from zeroconv.errors import UserError
from zeroconv.optim import split_weights
from zeroconv.training import assembling, cache_command, caching
from zeroconv.training.recipes.recipe import Recipe

FILE = "control/diffusion_pytorch_model.safetensors"
pytestmark = pytest.mark.filterwarnings("ignore:T5 reads")
CASES = [
    ("flux", {"blocks": 1}),
    pytest.param("sd3", {"blocks": 2, "zeros_for_pooled": True}, marks=pytest.mark.slow),
    pytest.param("qwen", {"blocks": 2, "mask": True}, marks=pytest.mark.slow),
    pytest.param("zimage", {"layers": [0, 2]}, marks=pytest.mark.slow),
    pytest.param("zimage", {"layers": [0, 2], "mask": True}, marks=pytest.mark.slow),
]


def with_data(recipe: Recipe, **changes: Any) -> Recipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=changes)})


def equal(a: Path, b: Path) -> bool:
    one, other = load_file(a / FILE), load_file(b / FILE)
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(("name", "control"), CASES)
def test_cached_latents_of_hints_train_as_hints_encoded_in_every_step(
    make: Make,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    control: dict[str, Any],
) -> None:
    """Bit for bit, mirrored and blanked hints too."""
    settings = {"steps": 2, "validate_every": 2}
    changes = {"flip": True, "hint_dropout": 0.3}
    cached = quiet(with_data(make(name, control, out="cached", **settings), **changes))
    monkeypatch.setattr(caching, "hint_encoder", lambda backbone, control: None)
    fresh = quiet(with_data(make(name, control, out="fresh", **settings), **changes))
    assert equal(cached, fresh)


def test_the_cache_command_makes_the_latents_of_hints_that_a_run_reads(
    make: Make,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """In two parts, mirrored hints too; nothing is left to encode when the run starts."""
    recipe = with_data(make("flux", {"blocks": 1}, steps=1), flip=True, cache=tmp_path / "cache")
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe.model_dump(mode="json", exclude_unset=True)))
    for part in ("1/2", "2/2"):
        cache_command(path, part=part)

    def encoded(*values: Any) -> None:
        raise AssertionError("a hint is encoded again")

    monkeypatch.setattr(hint_latents, "_encoded", encoded)
    assert (quiet(recipe) / FILE).exists()


def test_text_states_of_half_precision_are_cached_bit_for_bit(
    make: Make,  # noqa: F811
    root: Path,  # noqa: F811
) -> None:
    base: Any = load_backbone(make("flux").base, flow_dtype=torch.bfloat16)
    assert base.dtype == torch.bfloat16 and base.vae.dtype == torch.float32
    captions = ["a red ball on a floor", "two green cubes"]
    table = cache_text(base, [captions], root / "cache")
    assert table.shards[0].arrays["hidden"].dtype == "uint16"
    states = table.states([table.captions.index(caption) for caption in captions])
    assert torch.equal(states.hidden, base.embed_text(captions).hidden.float())


def test_text_encoders_are_let_go_where_no_picture_is_made(make: Make) -> None:  # noqa: F811
    for offload in ("none", "model"):
        recipe = make("flux", offload=offload)
        base: Any = assembling.load_frozen(recipe, torch.device("cpu"))
        base.embed_text(["a red ball"])
        assembling.leave_text_(make("flux", sample_count=1).training, base)
        assert len(base.text_encoders) == 2
        assembling.leave_text_(recipe.training, base)
        assert not base.text_encoders
        assert base.offload is None or "text" not in base.offload.residency.groups


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("frozen", ["same", "int8"])
def test_moved_blocks_train_as_blocks_that_stay(make: Make, name: str, frozen: str) -> None:  # noqa: F811
    settings = {"steps": 3, "checkpointing": "full", "frozen": frozen, "sample_count": 1}
    settings |= {"sample_steps": 2}
    stay = quiet(make(name, out="stay", **settings))
    moved = quiet(make(name, out="moved", offload="group", offload_blocks=2, **settings))
    assert equal(stay, moved)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16_weights"])
@pytest.mark.parametrize("frozen", ["same", "bf16", "int8", "fp8"])
def test_flow_run_in_all_numbers(
    make: Make,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    precision: str,
    frozen: str,
) -> None:
    monkeypatch.setattr(split_weights, "LEAST", 256)  # so that some weights here are narrowed
    settings = {"steps": 2, "precision": precision, "frozen": frozen, "sample_count": 1}
    settings |= {"sample_steps": 2, "validate_every": 2, "optimizer": "adamw8bit"}
    state = load_file(quiet(make(name, **settings)) / FILE)
    assert all(value.isfinite().all() for value in state.values())


def test_blocks_are_moved_only_where_they_come_back(make: Make) -> None:  # noqa: F811
    with pytest.raises(UserError, match=r"needs training.checkpointing full"):
        make("flux", offload="group")
    with pytest.raises(UserError, match=r"offload_blocks is of training.offload group"):
        make("flux", offload_blocks=2)
    recipe = make("flux", offload="group", checkpointing="full")
    with warnings.catch_warnings(), pytest.raises(UserError, match="is a UNet; write model"):
        assembling.place_(recipe.training, load_backbone("playroom"), torch.device("cpu"))
