"""Hands and faces: the geometry on networks that know the answer, and the real ones where they are.

The networks' stand-ins say where a hand or a face is by what the square that they are given shows.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

import zeroconv
from zeroconv.annotators import landmarks, litert, person, read
from zeroconv.annotators.landmarks import JAW, MESH, with_face, with_hands
from zeroconv.annotators.litert import from_crop, square, to_crop
from zeroconv.annotators.weights import LEARNED, home
from zeroconv.conditions.figure import BODY, Figure
from zeroconv.errors import UserError

NOBODY = np.zeros((BODY, 3), np.float32)
PALM, HAND, MESHES = Path("palm"), Path("hand"), Path("mesh")


def body(**joints: tuple[float, float]) -> np.ndarray:
    points = NOBODY.copy()
    for name, at in joints.items():
        points[int(name[1:])] = (*at, 1)
    return points


@pytest.mark.parametrize("angle", [0.0, 0.4, -2.1, np.pi])
def test_points_of_a_turned_square_go_there_and_back(angle: float) -> None:
    centre, points = np.array([70.0, 40.0]), np.array([[60.0, 30.0], [80.5, 41.25], [70.0, 40.0]])
    matrix = to_crop(centre, 50, angle, 192)
    there = points @ matrix[:, :2].T + matrix[:, 2]
    assert np.allclose(from_crop(there, centre, 50, angle, 192), points)
    assert np.allclose(there[2], 96)  # the centre is the middle


def test_a_square_shows_the_picture_and_black_outside() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    image[20:30, 60:80] = (255, 128, 0)
    crop = square(image, np.array([70.0, 25.0]), 20, 0, 64)
    assert crop.shape == (64, 64, 3) and crop.dtype == np.float32 and crop.min() >= 0
    assert np.allclose(crop[32, 32], (1, 128 / 255, 0), atol=0.01) and crop[4, 32].max() == 0
    # a quarter turn clockwise of the square lays the picture's right at its top
    turned = square(image, np.array([70.0, 25.0]), 20, np.pi / 2, 64)
    assert turned[32, 4].max() == 0 < turned[4, 32].max()
    assert square(image, np.array([-500.0, 0.0]), 20, 0, 64).max() == 0


class Networks:
    """Stand-ins: a palm is where the square is red, its fingers point up in the picture."""

    def __init__(self, sure: float = 9.0, presence: float = 1.0) -> None:
        self.sure, self.presence, self.calls = sure, presence, 0

    def __call__(self, path: Path, pixels: np.ndarray) -> list[Any]:
        self.calls += 1
        red = np.argwhere(pixels[..., 0] > 0.5)
        middle = red.mean(axis=0)[::-1] if len(red) else np.array([0.0, 0.0])
        if path == PALM:
            boxes, scores = np.zeros((2016, 18), np.float32), np.full((2016, 1), -20, np.float32)
            anchor = landmarks._anchors()[700]
            side = np.sqrt(len(red))
            boxes[700, :4] = (*(middle - anchor), side, side)
            boxes[700, 4:6] = middle - anchor + (0, side / 2)  # the wrist, below
            boxes[700, 8:10] = middle - anchor - (0, side / 2)  # the middle knuckle, above
            scores[700] = self.sure if len(red) else -20
            return [boxes, scores]
        if path == HAND:
            points = np.tile([*middle, 0.0], (21, 1))
            return [points.ravel(), np.array([self.presence]), None, None]
        points = np.zeros((468, 3))
        points[:, :2] = middle + np.stack([np.linspace(-40, 40, 468), np.zeros(468)], -1)
        return [points.reshape(1, 1, -1), np.array([[[self.sure]]])]


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> Networks:
    nets = Networks()
    monkeypatch.setattr(landmarks, "run", nets)
    return nets


def palms(*places: tuple[int, int], size: int = 400) -> np.ndarray:
    image = np.zeros((size, size, 3), np.uint8)
    for x, y in places:
        image[y - 10 : y + 10, x - 10 : x + 10] = (255, 0, 0)
    return image


def test_hands_are_read_at_the_wrist_that_has_one(networks: Networks) -> None:
    figure = Figure(body(j2=(150, 80), j3=(110, 140), j4=(100, 220), j5=(250, 80), j7=(300, 220)))
    result = with_hands(palms((95, 250)), figure, PALM, HAND)
    assert result.left_hand is None and result.right_hand is not None
    assert result.right_hand.shape == (21, 3) and result.right_hand.dtype == np.float32
    assert np.abs(result.right_hand[:, :2] - (95, 250)).max() < 1.5

    both = with_hands(palms((95, 250), (305, 240)), figure, PALM, HAND)
    assert both.left_hand is not None and np.abs(both.left_hand[0, :2] - (305, 240)).max() < 1.5


def test_one_hand_between_two_wrists_belongs_to_the_nearer(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landmarks, "_same", lambda one, other: True)
    arms = {"j2": (150, 80), "j4": (180, 200), "j5": (250, 80), "j7": (240, 200)}
    result = with_hands(palms((225, 215)), Figure(body(**arms)), PALM, HAND)
    assert result.left_hand is not None and result.right_hand is None


def test_no_hand_where_no_wrist_or_no_size_or_nothing_sure(networks: Networks) -> None:
    image = palms((95, 250))
    for joints in ({}, {"j4": (100, 220)}, {"j3": (99, 219), "j4": (100, 220)}):
        assert with_hands(image, Figure(body(**joints)), PALM, HAND).right_hand is None
    assert networks.calls == 0
    arm = Figure(body(j3=(110, 140), j4=(100, 220)))
    assert with_hands(image, arm, PALM, HAND).right_hand is not None
    for networks.sure, networks.presence in ((-1.0, 1.0), (9.0, 0.4)):
        assert with_hands(image, arm, PALM, HAND).right_hand is None


def test_faces_are_read_twice_around_the_eyes(networks: Networks) -> None:
    image = palms((120, 100))
    figure = Figure(body(j0=(120, 110), j14=(110, 95), j15=(130, 95)))
    result = with_face(image, figure, MESHES)
    assert networks.calls == 2 and result.face is not None and result.face.shape == (70, 3)
    assert np.abs(result.face[:, 1] - 100).max() < 3
    # pupils are the means of their eyes
    assert np.allclose(result.face[68, :2], result.face[36:42, :2].mean(axis=0), atol=1e-3)
    assert with_face(image, Figure(body(j0=(120, 110))), MESHES).face is None
    networks.sure = -1.0
    assert with_face(image, figure, MESHES).face is None


def test_the_jaw_is_eight_even_steps_from_each_ear_to_the_chin() -> None:
    line = np.column_stack([np.linspace(0, 1, len(JAW)) ** 2, np.zeros(len(JAW))])
    jaw = landmarks._jaw(line)
    assert jaw.shape == (17, 2) and jaw[8, 0] == line[11, 0] == 0.25  # the chin, mesh point 152
    assert np.allclose(np.diff(jaw[:9, 0]), 0.25 / 8) and np.allclose(np.diff(jaw[8:, 0]), 0.75 / 8)
    assert len(MESH) == 51 and len(set(MESH)) == 51 and len(set(JAW)) == 23


def test_anchors_are_the_palm_detectors() -> None:
    anchors = landmarks._anchors()
    assert anchors.shape == (2016, 2) and (anchors[0] == anchors[1]).all()
    assert anchors[0].tolist() == [4, 4] and anchors[2].tolist() == [12, 4]
    assert anchors[1152].tolist() == [8, 8] and anchors[-1].tolist() == [184, 184]


def test_without_litert_the_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert", None)
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UserError, match=r"pip install 'zeroconv\[annotators\]'"):
        litert.run(tmp_path / "no.tflite", np.zeros((4, 4, 3), np.float32))


def test_without_weights_the_sentence_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ZEROCONV_ANNOTATORS", str(tmp_path))
    picture = Image.new("RGB", (32, 32))
    with pytest.raises(UserError, match="zeroconv annotators landmarks"):
        read("pose", picture, hands=True)
    with (
        pytest.raises(UserError, match="zeroconv annotators landmarks"),
        pytest.warns(UserWarning, match="openpose_full is drawn as pose"),
    ):
        zeroconv.annotate("openpose_full", picture)
    with pytest.raises(UserError, match="zeroconv annotators selfie"):
        zeroconv.annotate("person", picture)


def test_a_mask_of_people_keeps_patches_with_a_joint(monkeypatch: pytest.MonkeyPatch) -> None:
    share = np.zeros((256, 256, 1), np.float32)
    share[20:120, 20:100], share[150:220, 150:250] = 0.9, 0.8
    monkeypatch.setattr(person, "run", lambda path, pixels: [share])
    image = np.zeros((512, 256, 3), np.uint8)
    standing = body(j1=(60, 100), j4=(-50, 900))
    mask = person.person_mask(image, Path("selfie"), [standing])
    assert mask.shape == (512, 256) and set(np.unique(mask)) == {0, 255}
    assert mask[100, 60] == 255 and mask[400, 200] == 0
    with pytest.warns(UserWarning, match="Nobody is seen"):
        assert person.person_mask(image, Path("selfie"), []).max() == 0


def test_the_real_networks_see_the_astronauts_face_and_no_hands() -> None:
    """On scikit-image's astronaut, where LiteRT and the weights are; the rest needs neither."""
    files = [home() / n / Path(f).name for n in ("landmarks", "posenet", "selfie")
             for f, _ in LEARNED[n].files]  # fmt: skip
    if importlib.util.find_spec("ai_edge_litert") is None or not all(f.is_file() for f in files):
        pytest.skip("LiteRT or the weights are not here; the geometry is tested above")
    (astronaut,) = read("pose", data.astronaut(), hands=True, face=True)
    assert astronaut.left_hand is None and astronaut.right_hand is None
    face = astronaut.face
    for number, expected in ((68, (204, 102)), (69, (248, 102)), (8, (220, 178)), (30, (222, 124))):
        assert np.abs(face[number, :2] - expected).max() < 12  # pupils, chin and nose, by eye
    mask = np.asarray(zeroconv.annotate("person", data.astronaut()))[..., 0]
    assert mask[100, 225] == 255 and mask[20, 480] == 0
    with pytest.warns(UserWarning, match="Nobody is seen"):
        assert np.asarray(zeroconv.annotate("person", data.chelsea())).max() == 0
