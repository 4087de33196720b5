"""Controls of diffusion transformers train by the flow's loss through the same trainer as others:
what they learn, how they go on, and what a recipe may ask of them.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers import tiny_flow
from tests.training.conftest import make_pictures
from tests.training.test_run import process, wait_for
from zeroconv.backbones import load_backbone
from zeroconv.control import ControlNet
from zeroconv.data.cache.text import cache_text
from zeroconv.errors import UserError
from zeroconv.evaluation.reader import Reader, save_reader
from zeroconv.training import train
from zeroconv.training.assembling import make_control
from zeroconv.training.checkpoint import checkpoints
from zeroconv.training.recipes.recipe import Recipe, parse_recipe

SHAPES: dict[str, dict[str, Any]] = {
    "sd3": {"blocks": 2},
    "flux": {"blocks": 2, "single_blocks": 2},
    "chroma": {"blocks": 2},
    "qwen": {"blocks": 2},
    "zimage": {"layers": [0, 2]},
}
Make = Callable[..., Recipe]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, and the tiny bases that tests write beside them."""
    root = tmp_path_factory.mktemp("flows")
    (root / "pictures").mkdir()
    make_pictures(root / "pictures", 40, 32)
    return root


@pytest.fixture
def make(root: Path, tmp_path: Path) -> Make:
    def made(name: str, control: dict[str, Any] | None = None, **settings: Any) -> Recipe:
        base = root / name
        if not base.exists():
            tiny_flow.WRITERS[name](base, scale=None)
        training = {"steps": 20, "batch_size": 4, "learning_rate": 1e-2, "clip": 100.0}
        training |= {"validate_every": 0, "sample_count": 0, "prompt_dropping": 1.0}
        data = {"train": [str(root / "pictures")], "condition": "depth", "size": 32}
        values = {
            "out": str(tmp_path / settings.pop("out", "run")),
            "base": str(base),
            "device": "cpu",
            "control": SHAPES[name] if control is None else control,
            "data": {**data, "validation_count": 8, "cache": str(root / "cache"), "workers": 1},
            "training": {**training, **settings},
        }
        return parse_recipe(values)

    return made


def quiet(recipe: Recipe) -> Path:
    return train(recipe, say=lambda line: None)


def gains(out: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [line["validation"] for line in lines if "validation" in line]


FAMILIES = [
    name if name == "flux" else pytest.param(name, marks=pytest.mark.slow) for name in SHAPES
]


@pytest.mark.filterwarnings("ignore:T5 reads")
@pytest.mark.parametrize("name", FAMILIES)
def test_flow_control_learns_from_its_hints(make: Make, name: str) -> None:
    """In 20 steps the loss falls, and more so with the right hint than with another's."""
    timesteps = {"flux": "logit_normal", "sd3": "mode"}.get(name, "uniform")
    steps = 20 if name == "flux" else 60
    out = quiet(make(name, steps=steps, timesteps=timesteps, validate_every=steps))
    first, last = gains(out)
    assert first["gain"] == 0 and first["true"] == first["none"]
    assert last["true"] < 0.9 * first["true"] and last["none"] == first["none"]
    assert last["gain"] > 1e-3 and last["gain"] > last["gain_error"]
    base = load_backbone(str(make(name).base))
    control = ControlNet.load(out / "control", backbone=base)
    assert control.condition == "depth"


@pytest.mark.filterwarnings("ignore:T5 reads")
@pytest.mark.parametrize("name", FAMILIES)
def test_flow_control_trains_with_a_reward(make: Make, root: Path, name: str) -> None:
    """Its hints are cached as latents; the reward reads them as pictures."""
    reader = root / "reader.safetensors"
    if not reader.exists():
        save_reader(Reader(8), reader)
    reward = {"weight": 1.0, "share": 0.5, "reader": str(reader)}
    out = quiet(make(name, steps=2, log_every=1, validate_every=2, reward=reward))
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert all(line["reward"] > 0 for line in lines if "lr" in line)
    assert all(line["reward_samples"] >= 2 for line in lines if "lr" in line)
    assert all("reward" in line["validation"] for line in lines if "validation" in line)


@pytest.mark.filterwarnings("ignore:T5 reads")
def test_flow_run_that_goes_on_equals_one_that_never_stopped(make: Make) -> None:
    settings = {"checkpoint_every": 3, "timesteps": "logit_normal", "prompt_dropping": 0.5}
    straight = quiet(make("flux", out="straight", steps=6, **settings))
    quiet(make("flux", out="stopped", steps=3, **settings))
    stopped = quiet(make("flux", out="stopped", steps=6, **settings))
    name = "control/diffusion_pytorch_model.safetensors"
    a, b = load_file(straight / name), load_file(stopped / name)
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:T5 reads")
@pytest.mark.parametrize("name", ["flux", "zimage"])
def test_flow_run_that_is_killed_equals_one_that_never_stopped(
    make: Make, tmp_path: Path, name: str
) -> None:
    """kill -9 at a random moment, then to the end, in a process of its own."""
    settings = {"steps": 40, "checkpoint_every": 5, "keep": 1, "threads": 1}
    before = torch.get_num_threads()
    straight = quiet(make(name, out="straight", **settings))
    stopped = make(name, out="stopped", **settings)
    with process(stopped, tmp_path / "recipe.yaml") as first:
        wait_for(lambda: bool(checkpoints(tmp_path / "stopped" / "checkpoints")))
        time.sleep(random.random() * 0.5)
        first.kill()
    quiet(stopped)
    torch.set_num_threads(before)
    file = "control/diffusion_pytorch_model.safetensors"
    a, b = load_file(straight / file), load_file(tmp_path / "stopped" / file)
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:T5 reads")
@pytest.mark.parametrize("name", ["flux", "qwen", "zimage"])
def test_flow_run_in_fewer_bits_with_pictures_on_the_way(make: Make, name: str) -> None:
    settings = {"frozen": "int8", "checkpointing": "full", "optimizer": "adafactor"}
    settings |= {"sample_count": 2, "sample_steps": 2, "precision": "bf16", "steps": 2}
    out = quiet(make(name, **settings))
    assert (out / "samples" / "step-00000002.png").is_file()
    state = load_file(out / "control" / "diffusion_pytorch_model.safetensors")
    assert all(value.isfinite().all() for value in state.values())


@pytest.mark.parametrize("name", ["qwen", "flux"])
@pytest.mark.filterwarnings("ignore:T5 reads")
def test_cached_text_states_are_those_of_the_base(make: Make, root: Path, name: str) -> None:
    """Captions of several lengths, of Qwen-Image as many states as tokens."""
    base: Any = load_backbone(str(make(name).base))
    captions = ["a", "a red ball on a floor", "two green cubes and a hat " * 2]
    table = cache_text(base, [captions], root / "cache")
    rows = [table.captions.index(caption) for caption in captions]
    cached, fresh = table.states(rows), base.embed_text(captions)
    assert torch.allclose(cached.hidden, fresh.hidden, atol=1e-5)
    if name == "qwen":
        assert torch.equal(cached.mask, fresh.mask) and cached.pooled is None
        alone = table.states([0])
        assert alone.mask is not None and bool(alone.mask.all())
    else:
        assert torch.allclose(cached.pooled, fresh.pooled, atol=1e-5) and cached.mask is None


@pytest.mark.parametrize(
    ("name", "control", "message"),
    [
        ("flux", {"kind": "t2i_adapter"}, "is for a UNet"),
        ("flux", {"only_mid_control": True}, "only_mid_control is of a UNet's ControlNet"),
        ("flux", {"layers": [0, 1]}, "has no option layers"),
        ("flux", {"blocks": 9}, "1 to 3 double blocks"),
    ],
)
def test_flow_recipe_of_what_its_base_has_not_is_refused(
    make: Make, name: str, control: dict[str, Any], message: str
) -> None:
    recipe = make(name, control)
    with pytest.raises(UserError, match=message):
        make_control(recipe, load_backbone(recipe.base))


def test_recipe_of_a_unet_refuses_the_shape_of_a_transformer(base: Path, make: Make) -> None:
    recipe = make("flux", {"blocks": 2})
    with pytest.raises(UserError, match=r"control.blocks is of controls of diffusion transformers"):
        make_control(recipe, load_backbone(base))
