"""A folder of hints in, a folder of pictures out: names kept, resumed, broken ones set aside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from zeroconv.cli.generate.controls import ControlSpec
from zeroconv.cli.generate.folders import models_of
from zeroconv.cli.generate.making import Making
from zeroconv.generation.metadata.record import read_info


@pytest.fixture
def hints(tmp_path: Path) -> Path:
    folder = tmp_path / "hints"
    (folder / "inner").mkdir(parents=True)
    for i, name in enumerate(("a.png", "b.v2.png", "c.jpg")):
        Image.new("RGB", (64, 64), (80 * i, 0, 0)).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def run(zeroconv, models: Path, hints: Path, tmp_path: Path) -> Callable[..., object]:
    def call(*words: object, code: int = 0, control: object = None):
        few = ("--base", models / "base", "--steps", 1, "--cfg", 1, "--dtype", "float32")
        given = ("--control", control or f"{models / 'canny'}={hints}")
        result = zeroconv("generate", "a ball", *given, *few, "--out", tmp_path / "out", *words)
        assert result.exit_code == code, result.output
        return result

    return call


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folders_keep_names_and_what_is_done(run, hints, tmp_path) -> None:
    result = run("--json")
    report = json.loads(result.stdout)
    assert "folders in" in result.stderr and report["finished"] and report["kept"] == 0
    assert names(tmp_path / "out") == ["a.png", "b.v2.png", "c.png"]
    assert read_info(tmp_path / "out" / "c.png")["controls"][0]["picture"].endswith("c.jpg")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}

    Image.new("RGB", (64, 64), "white").save(hints / "d.png")  # one more, and one changed
    Image.new("RGB", (64, 64), "white").save(hints / "a.png")
    report = json.loads(run("--json").stdout)
    assert report["kept"] == 2 and len(report["pictures"]) == 2
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {path.name for path in before if before[path] != after[path]} == {"a.png"}
    assert json.loads(run("--json", "--seed", 1).stdout)["kept"] == 0  # other settings


def test_folders_say_what_they_keep(run) -> None:
    run()
    again = run()
    assert "3 pictures of this request were there already and are kept" in again.stderr
    assert not again.stdout


def test_folders_stamp_files_behind_their_weights_and_kinds(tmp_path) -> None:
    making = Making({})
    making.lora_folders = [str(tmp_path)]
    for name in ("style.safetensors", "v.pt", "union.safetensors", "e.pt", "tag.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    control = ControlSpec(f"{tmp_path}/union.safetensors:canny", Path("p.png"), False)
    named = models_of(
        ["a <lora:tag:1>"],
        [control],
        "playroom",
        [f"{tmp_path}/style.safetensors:0.5"],
        {"vae": f"{tmp_path}/v.pt", "parts": [f"{tmp_path}/t5.safetensors"]},
        {"embeddings": [f"mine={tmp_path}/e.pt"]},
        making,
    )
    files = (
        "v.pt",
        "style.safetensors",
        "t5.safetensors",
        "union.safetensors",
        "e.pt",
        "tag.safetensors",
    )
    assert named == ["playroom", *(str(tmp_path / name) for name in files)]


def test_folders_set_broken_pictures_aside(run, hints, tmp_path) -> None:
    (hints / "b.v2.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    Image.new("RGB", (64, 64)).save(hints / "a.webp")
    result = run("--json", code=3)
    assert sorted(json.loads(result.stdout)["broken"]) == ["a.webp", "b.v2"]
    assert names(tmp_path / "out") == ["a.png", "c.png"]


def test_folders_of_two_controls_go_together_by_name(run, models, hints, tmp_path) -> None:
    (tmp_path / "masks").mkdir()
    for name in ("a.png", "c.png", "z.png"):
        Image.new("L", (64, 64), 255).save(tmp_path / "masks" / name)
    result = run("--region", tmp_path / "masks", "--count", 2, "--json", code=3)
    assert sorted(json.loads(result.stdout)["broken"]) == ["b.v2", "z"]
    assert names(tmp_path / "out") == ["a-0.png", "a-1.png", "c-0.png", "c-1.png"]


def test_folders_of_pictures_to_start_from(zeroconv, models, hints, tmp_path) -> None:
    few = ("--base", models / "base", "--steps", 2, "--cfg", 1, "--dtype", "float32")
    words = ("generate", "a ball", "--image", hints, *few, "--out", tmp_path / "out", "--json")
    result = zeroconv(*words)
    assert result.exit_code == 0, result.output
    assert names(tmp_path / "out") == ["a.png", "b.v2.png", "c.png"]
    assert read_info(tmp_path / "out" / "a.png")["image"] == str(hints / "a.png")
    assert json.loads(zeroconv(*words).stdout)["kept"] == 3
    (hints / "d.png").write_bytes(b"no picture")
    result = zeroconv(*words)
    assert result.exit_code == 3 and list(json.loads(result.stdout)["broken"]) == ["d"]


def test_folders_touch_nobody_s_files(run, models, hints, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "out" / "a.png")
    assert "zeroconv did not write it" in run(code=2).stderr
    assert "name a folder" in run("--out", tmp_path / "one.png", code=2).stderr
    assert "holds the input" in run("--out", tmp_path, code=2).stderr
    (tmp_path / "empty").mkdir()
    control = f"{models / 'canny'}={tmp_path / 'empty'}"
    assert "holds no picture" in run(control=control, code=2).stderr


def test_folders_end_at_a_wrong_request(run) -> None:
    assert "There is no scheduler" in run("--scheduler", "nothing", code=2).stderr
    assert "not a folder" in run("--vary", "steps=1,2", code=2).stderr
