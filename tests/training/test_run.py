"""A run from its recipe to its folder, killed and gone on with in real processes, and what a user
is told.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from zeroconv.control import ControlNet
from zeroconv.data import open_dataset
from zeroconv.data.holding_out import hold_out
from zeroconv.errors import UserError
from zeroconv.training import train
from zeroconv.training.checkpoint import checkpoints
from zeroconv.training.recipes.recipe import Recipe

Make = Callable[..., Recipe]


def test_a_run_leaves_all_it_promises(recipe: Make) -> None:
    lines: list[str] = []
    out = train(
        recipe(validate_every=3, sample_count=2, sample_steps=2, log_every=2), say=lines.append
    )
    control = ControlNet.load(out / "control")
    assert control.config["zeroconv"]["condition"] == "depth"
    assert any(conv.weight.any() for conv in control.zero_convs)  # type: ignore[union-attr]
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["status"], summary["steps"], summary["samples"]) == ("finished", 6, 12)
    assert summary["validation"]["step"] == 6
    assert summary["examples"] == 54
    with Image.open(out / "samples" / "step-00000006.png") as sheet:
        assert sheet.size == (4 * 66 - 2, 2 * 66 - 2)
    assert (out / "log.jsonl").is_file()
    assert any("hint gain" in line for line in lines)
    assert any("min left" in line for line in lines)
    assert not (out / "broken.json").exists()


def test_a_finished_run_is_left_as_it_is(recipe: Make) -> None:
    out = train(recipe(), say=lambda line: None)
    before = load_file(out / "control" / "diffusion_pytorch_model.safetensors")
    train(recipe(), say=lambda line: None)
    after = load_file(out / "control" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_may_be_made_longer(recipe: Make) -> None:
    lines: list[str] = []
    train(recipe(steps=4), say=lines.append)
    out = train(recipe(steps=6), say=lines.append)
    assert "going on from step 4 of 6" in lines
    assert json.loads((out / "summary.json").read_text())["steps"] == 6


def test_another_recipe_keeps_out(recipe: Make) -> None:
    train(recipe(steps=2), say=lambda line: None)
    with pytest.raises(UserError, match=r"another recipe \(training.batch_size was 2, is 3\)"):
        train(recipe(steps=2, batch_size=3))
    with pytest.raises(UserError, match="holds a run already"):
        train(recipe(steps=2), resume=False)


def test_a_control_that_cannot_be_made_costs_no_caching(recipe: Make, monkeypatch) -> None:
    monkeypatch.setattr(
        "zeroconv.data.cache.fill.cache_examples", lambda *words: pytest.fail("too late")
    )
    for control in ({"init": "nowhere"}, {"kind": "lora", "options": {"size": 3}}):
        with pytest.raises(UserError):
            train(recipe(control=control), say=lambda line: None)


def test_a_batch_larger_than_all_memory_is_refused(recipe: Make, monkeypatch) -> None:
    monkeypatch.setattr("zeroconv.training.execution.room.all_memory", lambda: 10**6)
    with pytest.raises(UserError, match=r"training.batch_size 64 at 64 pixels .* lower"):
        train(recipe(batch_size=64), say=lambda line: None)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: no"),
    ],
)
def test_training_memory_that_runs_out_is_one_sentence(
    recipe: Make, monkeypatch, error: Exception
) -> None:
    def step(self, micro):
        raise error

    monkeypatch.setattr("zeroconv.training.trainer.Trainer._train_step", step)
    with pytest.raises(UserError, match=r"not enough memory for training.batch_size 2 .* full"):
        train(recipe(), say=lambda line: None)


def test_captions_longer_than_the_encoder_are_read_complete(
    recipe: Make, pictures: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(pictures, tmp_path / "copy")
    text = (folder / "metadata.jsonl").read_text()
    (folder / "metadata.jsonl").write_text(text.replace("picture number 03", "word " * 40))
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        train(recipe(steps=2, **{"data.train": [str(folder)]}), say=lambda line: None)
    assert not [one for one in noted if "longer" in str(one.message)]


def test_a_recipe_may_be_mended_before_its_first_step(recipe: Make) -> None:
    with pytest.raises(UserError, match="no data folder"):
        train(recipe(steps=1, **{"data.train": ["nowhere"]}))
    assert (train(recipe(steps=1), say=lambda line: None) / "control").is_dir()


def test_a_folder_of_something_else_is_not_touched(recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty and holds no run"):
        train(recipe())
    with pytest.raises(UserError, match="is a file"):
        train(recipe(out=str(tmp_path / "run" / "thesis.txt")))


def test_going_on_from_a_control(recipe: Make, tmp_path: Path) -> None:
    first = train(recipe(), say=lambda line: None)
    control = ControlNet.load(first / "control")
    changed = recipe(
        out=str(tmp_path / "second"), steps=1, control={"init": str(first / "control")}
    )
    second = ControlNet.load(train(changed, say=lambda line: None) / "control")
    old, new = control.hint_encoder.conv_in.weight, second.hint_encoder.conv_in.weight
    assert torch.allclose(old, new, atol=3e-3)
    assert not torch.equal(old, new)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data.train": ["nowhere"]}, "no data folder nowhere"),
        ({"base": "nowhere"}, "no backbone 'nowhere'"),
        ({"data.size": 60}, "multiple of 8"),
        ({"data.condition": "edges", "data.train": ["playroom:train:30"]}, "no condition 'edges'"),
        ({"data.train": ["playroom:train:10"]}, "too few to hold some out"),
        ({"control": {"init": "nowhere"}}, "nowhere"),
    ],
)
def test_what_is_wrong_is_one_sentence(recipe: Make, changes: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        train(recipe(**changes), say=lambda line: None)
    assert "\n" not in str(caught.value)


def test_broken_pictures_are_listed_and_counted(
    recipe: Make, pictures: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(pictures, tmp_path / "copy")
    (folder / "3.png").write_bytes(b"oops")
    lines: list[str] = []
    out = train(recipe(steps=1, **{"data.train": [str(folder)]}), say=lines.append)
    assert list(json.loads((out / "broken.json").read_text())) == ["3.png"]
    assert json.loads((out / "summary.json").read_text())["broken"] == 1
    assert any("1 pictures were set aside" in line for line in lines)


def test_a_run_that_goes_on_with_other_pictures_says_so(
    recipe: Make, pictures: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(pictures, tmp_path / "copy")
    settings = {"data.train": [str(folder)]}

    def changes(steps: int) -> list[str]:
        lines: list[str] = []
        train(recipe(steps=steps, **settings), say=lines.append)
        return [line for line in lines if "has changed" in line]

    assert changes(1) == changes(2) == []
    (folder / "3.png").write_bytes(b"oops")
    (line,) = changes(3)
    assert "since the checkpoint" in line and len(set(re.findall(r"\d+", line))) == 2
    assert changes(4) == []


def test_held_out_pictures_are_not_trained_on() -> None:
    dataset = open_dataset("stickers?views=2")
    rest, held = hold_out(dataset, 128)
    names = [{data.name(i).partition("#")[0] for i in range(len(data))} for data in (rest, held)]
    assert not names[0] & names[1]
    assert len(rest) + len(held) == len(dataset)
    assert len(held) >= 20
    again = hold_out(open_dataset("stickers?views=2"), 128)[1]
    assert [again.name(i) for i in range(len(again))] == [held.name(i) for i in range(len(held))]


# ---------------------------------------------------------------- real processes


@contextmanager
def process(recipe: Recipe, path: Path) -> Iterator[subprocess.Popen]:
    """`train_command` in a process of its own, killed at the end whatever happened."""
    path.write_text(yaml.safe_dump(json.loads(recipe.model_dump_json())))
    words = [sys.executable, "-W", "ignore", "-m", "zeroconv.cli", "train", str(path)]
    running = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums depend on how they are shared among threads; the processes are told to use one."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_killed_and_interrupted_equals_never_stopped(
    recipe: Make, tmp_path: Path, one_thread: None
) -> None:
    """kill -9 at a random moment, then SIGTERM, then to the end: the weights of a run that was
    never stopped.
    """
    settings = {"steps": 40, "checkpoint_every": 5, "keep": 1, "threads": 1}
    straight = train(recipe(out=str(tmp_path / "straight"), **settings), say=lambda line: None)
    stopped = recipe(out=str(tmp_path / "stopped"), **settings)
    folder = tmp_path / "stopped" / "checkpoints"
    with process(stopped, tmp_path / "recipe.yaml") as first:
        wait_for(lambda: bool(checkpoints(folder)))
        time.sleep(random.random() * 0.5)
        first.kill()
    before = checkpoints(folder)[0].name
    with process(stopped, tmp_path / "recipe.yaml") as second:
        wait_for(
            lambda: (
                any(path.name != before for path in checkpoints(folder))
                or second.poll() is not None
            )
        )
        second.send_signal(signal.SIGTERM)
        words = second.communicate(timeout=300)[0]
    assert (second.returncode, "finished" in words) in ((128 + signal.SIGTERM, False), (0, True))
    train(stopped, say=lambda line: None)

    name = "control/diffusion_pytorch_model.safetensors"
    a, b = load_file(straight / name), load_file(tmp_path / "stopped" / name)
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_pictures_on_the_way_of_a_base_in_fewer_bits(recipe, precision: str) -> None:
    settings = {
        "frozen": "int8",
        "checkpointing": "full",
        "optimizer": "adafactor",
        "validate_every": 2,
    }
    out = train(recipe(steps=2, sample_count=2, sample_steps=2, precision=precision, **settings))
    assert (out / "samples" / "step-00000002.png").is_file()
    state = load_file(out / "control" / "diffusion_pytorch_model.safetensors")
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in state.values())
