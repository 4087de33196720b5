from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zeroconv import playroom
from zeroconv.conditions import maps
from zeroconv.data import open_dataset


def test_scenes_become_an_imagefolder_with_exact_maps(zeroconv, tmp_path: Path) -> None:
    kinds = "depth,normal,segmentation,instances,outline,keypoints"
    words = (
        "playroom",
        "render",
        tmp_path,
        "--count",
        2,
        "--split",
        "test",
        "--first",
        3,
        "--size",
        64,
    )
    result = zeroconv(*words, "--maps", kinds)
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text().splitlines()]
    scene = playroom.render(playroom.split_seeds("test", 1, start=3)[0], size=64)
    assert lines[0]["text"] == scene.caption
    assert lines[0]["seed"] == scene.seed
    opened = {
        kind: np.asarray(Image.open(tmp_path / lines[0][kind])) for kind in kinds.split(",")[:-1]
    }
    assert (
        np.asarray(Image.open(tmp_path / lines[0]["file_name"])) == np.asarray(scene.image)
    ).all()
    assert (opened["depth"] == maps.depth_to_hint(scene.depth)).all()
    assert (opened["segmentation"] == scene.segmentation).all()
    assert (opened["instances"] == scene.instances).all()
    assert (opened["outline"] == scene.outline).all()
    assert abs(maps.hint_to_normal(opened["normal"]) - scene.normal).max() < 0.01
    # class ids, shown in the colours of segmentation hints: a picture of both
    hint = open_dataset(str(tmp_path), condition="segmentation")[0].hint
    assert (np.asarray(hint) == maps.classes_to_hint(scene.segmentation)).all()
    assert len(lines[0]["keypoints"]) == len(scene.keypoints)


@pytest.mark.parametrize("other", [("--split", "val"), ("--size", 128)])
def test_scenes_of_another_split_or_size_replace_none(zeroconv, tmp_path: Path, other) -> None:
    """Their files have the same names."""
    words = ("playroom", "render", tmp_path / "scenes", "--count", 1, "--maps", "none")
    words += ("--workers", 1)
    assert zeroconv(*words, "--size", 64).exit_code == 0
    before = (tmp_path / "scenes" / "images" / "00000.png").read_bytes()
    refused = zeroconv(*words, *(("--size", 64) if "--split" in other else ()), *other)
    assert refused.exit_code == 2 and "name another folder" in refused.stderr
    assert (tmp_path / "scenes" / "images" / "00000.png").read_bytes() == before
    assert zeroconv(*words, "--size", 64).exit_code == 0


def test_such_a_folder_can_be_trained_on(zeroconv, tmp_path: Path) -> None:
    assert (
        zeroconv(
            "playroom", "render", tmp_path, "--count", 3, "--size", 64, "--maps", "none"
        ).exit_code
        == 0
    )
    examples = open_dataset(str(tmp_path), condition="canny")
    assert len(examples) == 3
    assert examples[0].image.size == (64, 64)
    assert examples[0].hint is not None


def test_help_and_version_name_every_command(zeroconv) -> None:
    text = zeroconv("--help").stdout
    for command in (
        "generate",
        "annotate",
        "train",
        "cache",
        "evaluate",
        "info",
        "convert",
        "demo",
        "playroom",
    ):
        assert command in text
    text = zeroconv("playroom", "--help").stdout
    for command in ("render", "stickers", "fill50k", "train-base"):
        assert command in text
    from zeroconv import __version__

    assert zeroconv("--version").stdout.strip() == f"zeroconv {__version__}"


def test_circles_become_the_tutorials_folder(zeroconv, tmp_path: Path) -> None:
    words = ("playroom", "fill50k", tmp_path / "circles", "--count", 3, "--size", 64)
    first, second = zeroconv(*words), zeroconv(*words)
    assert "3 circles, 3 drawn now" in first.output
    assert "3 circles, 0 drawn now" in second.output
    examples = open_dataset(str(tmp_path / "circles"), condition="circles")
    assert [e.caption.count(" circle with ") for e in examples] == [1, 1, 1]
    assert zeroconv(*words[:-1], 128).exit_code == 2


def test_launchers_of_many_processes_find_the_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "zeroconv.cli", "--help"], capture_output=True, text=True, check=True
    )
    assert "train" in done.stdout
    wrong = subprocess.run(
        [sys.executable, "-m", "zeroconv.cli", "train", "nowhere.yaml"], capture_output=True
    )
    assert wrong.returncode == 2
