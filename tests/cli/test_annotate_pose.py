"""Poses on the command line: OpenPose's JSON in and out, other programs' names, resize modes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.tiny import randomise_
from zeroconv import annotators
from zeroconv.annotators.pose import Person
from zeroconv.backbones import load_backbone
from zeroconv.conditions.figure import Figure
from zeroconv.conditions.openpose import read_openpose, to_openpose
from zeroconv.conditions.pose import draw_people
from zeroconv.control import ControlNet


def figure() -> Figure:
    rng = np.random.default_rng(0)
    parts = [
        np.column_stack([rng.uniform(4, 60, (count, 2)).round(2), np.ones(count)])
        for count in (18, 21, 21, 70)
    ]
    return Figure(*(part.astype(np.float32) for part in parts))


@pytest.fixture
def people(tmp_path: Path) -> Path:
    path = tmp_path / "people.json"
    path.write_text(json.dumps(to_openpose([figure()], (96, 64))))
    return path


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """A network that sees one whole person in every picture; the list says what it was asked."""
    asked: list[dict] = []

    def read(condition, image, backend=None, *, hands=False, face=False):
        asked.append({"backend": backend, "hands": hands, "face": face})
        one = figure()
        sides = (one.left_hand, one.right_hand) if hands else (None, None)
        return [Person(one.body, 1.0, *sides, one.face if face else None)]

    monkeypatch.setattr(annotators, "read", read)
    return asked


@pytest.mark.parametrize("name", ["pose", "openpose", "openpose_full"])
def test_annotate_draws_a_poses_json(zeroconv, people: Path, tmp_path: Path, name: str) -> None:
    result = zeroconv("annotate", name, people, "--out", tmp_path / "hint.png")
    assert result.exit_code == 0, result.output
    drawn = np.asarray(Image.open(tmp_path / "hint.png"))
    assert (drawn == draw_people(read_openpose(json.loads(people.read_text()))[0], (96, 64))).all()


def test_annotate_writes_a_pictures_pose_as_json(zeroconv, seen, photo: Path, tmp_path) -> None:
    words = ("annotate", "openpose_full", photo, "--out", tmp_path / "hint.png")
    result = zeroconv(*words, "--pose-json", tmp_path / "poses")
    assert result.exit_code == 0, result.output
    assert "openpose_full is drawn as pose" in result.stderr
    path = tmp_path / "poses" / "photo.json"
    assert json.loads(path.read_text())["canvas_width"] == 96
    assert zeroconv("annotate", "pose", path, "--out", tmp_path / "again.png").exit_code == 0
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "hint.png").read_bytes()
    assert seen == [{"backend": None, "hands": True, "face": True}]  # read once for both

    assert zeroconv(*words, "--pose-json", tmp_path / "poses").exit_code == 0  # ours is replaced
    path.write_text('{"people": "mine"}')
    assert zeroconv(*words, "--pose-json", tmp_path / "poses").exit_code == 2
    assert path.read_text() == '{"people": "mine"}'


def test_annotate_sets_the_parts_of_a_pose(zeroconv, seen, photo: Path, tmp_path: Path) -> None:
    words = ("annotate", "pose", photo, "--out", tmp_path / "hint.png", "--set")
    assert zeroconv(*words, "hands=1", "--backend", "posenet").exit_code == 0
    assert seen == [{"backend": "posenet", "hands": True, "face": False}]
    for wrong, message in (("hands=2", "0 or 1"), ("arms=1", "body, hands, face")):
        result = zeroconv(*words, wrong)
        assert result.exit_code == 2 and message in result.stderr


def test_annotate_writes_hands_and_faces_of_a_data_set(zeroconv, seen, photo, tmp_path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    photo.rename(folder / "a.png")
    (folder / "a.txt").write_text("somebody")
    result = zeroconv(
        "annotate", "openpose_hand", folder, "--out", tmp_path / "out", "--workers", 1
    )
    assert result.exit_code == 0, result.output
    (person,) = json.loads((tmp_path / "out/pose/a.json").read_text())["people"]
    assert set(person) == {
        "pose_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("canny", "people.json"), "canny hint"),
        (("canny", "photo.png", "--pose-json", "poses"), "pose alone"),
        (("animal_openpose", "photo.png"), "animal"),
        (("reference_only", "photo.png"), "cannot be drawn here"),
        (("canny,openpose_full", "photo.png"), "annotate it alone"),
    ],
)
def test_annotate_refuses_in_one_line(
    zeroconv, people, photo, tmp_path, monkeypatch, words, message
) -> None:
    monkeypatch.chdir(tmp_path)
    result = zeroconv("annotate", *words, "--out", "out.png")
    assert result.exit_code == 2 and message in result.stderr
    assert not (tmp_path / "out.png").exists() and not (tmp_path / "poses").exists()


def test_generate_takes_a_poses_json_and_a_resize_mode(
    zeroconv, models: Path, people: Path, tmp_path: Path
) -> None:
    backbone = load_backbone(str(models / "base"))
    control = tmp_path / "pose"
    randomise_(ControlNet.from_backbone(backbone, condition="pose")).save(control)
    size = ("--width", 64, "--height", 64, "--steps", 1, "--base", models / "base")
    words = (*size, "--resize-mode", "Resize and Fill", "--out")
    pictures = []
    for number, sign in enumerate("=:"):
        out = tmp_path / f"{number}.png"
        result = zeroconv("generate", "a", "--control", f"{control}{sign}{people}", *words, out)
        assert result.exit_code == 0, result.output
        assert "was resized to 64×64, its border continued" in result.stderr
        pictures.append(np.asarray(Image.open(out)))
    assert (pictures[0] == pictures[1]).all()
    wrong = zeroconv("generate", "a", "--control", f"pose={people}", "--resize-mode", "no")
    assert wrong.exit_code == 2 and "choose stretch" in wrong.stderr


def test_generate_draws_from_a_photograph_in_every_resize_mode(
    zeroconv, models: Path, photo: Path, tmp_path: Path
) -> None:
    size = ("--width", 64, "--height", 64, "--steps", 1, "--base", models / "base")
    size += ("--schedule", "trailing")
    made = []
    for mode in ("stretch", "crop", "fill"):
        out = tmp_path / f"{mode}.png"
        result = zeroconv("generate", "a", "--control", f"{models / 'canny'}:{photo}", *size,
                          "--resize-mode", mode, "--out", out)  # fmt: skip
        assert result.exit_code == 0 and "note" not in result.stderr, result.output
        made.append(np.asarray(Image.open(out)).tobytes())
    assert len(set(made)) == 3
