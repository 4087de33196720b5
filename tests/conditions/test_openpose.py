"""OpenPose's JSON, in and out, and the pictures that are drawn from it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zeroconv
from zeroconv.conditions import annotate, open_hint
from zeroconv.conditions.figure import BODY, FACE, HAND, Figure
from zeroconv.conditions.openpose import BODY_25, read_openpose, to_openpose
from zeroconv.conditions.pose import (
    BONE_COLOURS,
    BONES,
    COLOURS,
    draw_people,
    mirror_hint,
    mirror_people,
)
from zeroconv.errors import UserError

SIZE = (200, 160)


def points(count: int, seed: int, low: float = 5, high: float = 150) -> np.ndarray:
    """(count, 3) float32 at thousandths of a pixel, all known."""
    rng = np.random.default_rng(seed)
    at = rng.uniform(low, high, (count, 2)).round(3)
    return np.column_stack([at, np.ones(count)]).astype(np.float32)


def full_figure(seed: int = 0) -> Figure:
    body = points(BODY, seed)
    body[3] = 0
    return Figure(body, points(HAND, seed + 1), points(HAND, seed + 2), points(FACE, seed + 3))


def json_of(**parts: Any) -> dict[str, Any]:
    return {"people": [parts], "canvas_width": SIZE[0], "canvas_height": SIZE[1]}


def test_openpose_json_keeps_bodies_hands_and_faces() -> None:
    figures = [full_figure(), Figure(points(BODY, 9), None, points(HAND, 10), None)]
    value = json.loads(json.dumps(to_openpose(figures, SIZE)))
    assert set(value["people"][1]) == {"pose_keypoints_2d", "hand_right_keypoints_2d"}
    again, size = read_openpose(value)
    assert size == SIZE
    for before, after in zip(figures, again, strict=True):
        for part in ("body", "left_hand", "right_hand", "face"):
            one, other = getattr(before, part), getattr(after, part)
            assert (one is None) == (other is None)
            assert one is None or np.abs(one - other).max() < 1e-3


def test_openpose_json_of_body_25_is_read_in_cocos_order_with_a_note() -> None:
    body = points(25, 1)
    with pytest.warns(UserWarning, match="feet"):
        (figure,), _ = read_openpose(json_of(pose_keypoints_2d=body.ravel().tolist()))
    assert np.abs(figure.body - body[list(BODY_25)]).max() < 1e-5
    # nose, neck, right hip, left hip, ears
    for coco, body_25 in ((0, 0), (1, 1), (8, 9), (11, 12), (16, 17), (17, 18)):
        assert (figure.body[coco] == body[body_25]).all()


@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v], lambda v: (v,)])
def test_openpose_json_in_shares_of_the_canvas_and_in_a_list_is_the_same(wrap: Any) -> None:
    figure = full_figure()
    pixels, _ = read_openpose(wrap(to_openpose([figure], SIZE)))
    shares = Figure(
        *(
            part / np.array([*SIZE, 1], np.float32)
            for part in (figure.body, figure.left_hand, figure.right_hand, figure.face)
        )
    )
    value = to_openpose([shares], SIZE)
    for person in value["people"]:  # more digits than pixels need
        for part, key in (("body", "pose_keypoints_2d"), ("face", "face_keypoints_2d")):
            person[key] = getattr(shares, part).ravel().tolist()
    again, _ = read_openpose(wrap(value))
    assert np.abs(again[0].body - pixels[0].body).max() < 0.2
    assert np.abs(again[0].face - pixels[0].face).max() < 0.2


def test_openpose_json_holds_arrays_lists_of_points_and_empty_parts() -> None:
    body = points(BODY, 4)
    for given in (body, body.tolist(), body.ravel(), body.ravel().tolist()):
        value = json_of(pose_keypoints_2d=given, face_keypoints_2d=[], hand_left_keypoints_2d=None)
        (figure,), _ = read_openpose(value | {"canvas_width": np.int64(200)})
        assert (figure.body == body).all() and figure.face is None and figure.left_hand is None
    with pytest.warns(UserWarning, match="feet"):
        read_openpose(json_of(pose_keypoints_2d=points(25, 4).tolist()))


def test_openpose_json_with_68_points_of_a_face_has_no_pupils() -> None:
    face = points(68, 3)
    (figure,), _ = read_openpose(json_of(face_keypoints_2d=face.ravel().tolist()))
    assert figure.face is not None and figure.face.shape == (70, 3)
    assert (figure.face[68:] == 0).all() and (figure.body == 0).all()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("text", "not OpenPose's JSON"),
        ([], "not OpenPose's JSON"),
        ({"people": []}, "canvas_width"),
        ({"people": [], "canvas_width": 0, "canvas_height": 5}, "canvas_width"),
        ({"people": [], "canvas_width": True, "canvas_height": 5}, "canvas_width"),
        ({"people": [], "canvas_width": "9", "canvas_height": 5}, "canvas_width"),
        ({"people": [], "canvas_width": float("nan"), "canvas_height": 5}, "canvas_width"),
        ({"people": [], "canvas_width": 10**6, "canvas_height": 10**6}, "at most"),
        ({"canvas_width": 9, "canvas_height": 5}, "people"),
        ({"people": {}, "canvas_width": 9, "canvas_height": 5}, "people"),
        ({"people": [3], "canvas_width": 9, "canvas_height": 5}, "people"),
        ({"animals": [[1, 2, 3]], "canvas_width": 9, "canvas_height": 5}, "animals"),
        (json_of(pose_keypoints_2d=[1.0] * 51), "51 numbers"),
        (json_of(pose_keypoints_2d=[1.0] * 53), "18 × 3 or 25 × 3"),
        (json_of(pose_keypoints_2d=["a"] * 54), "numbers"),
        (json_of(pose_keypoints_2d=3), "numbers"),
        (json_of(pose_keypoints_2d=True), "numbers"),
        (json_of(pose_keypoints_2d={"a": 1}), "numbers"),
        (json_of(pose_keypoints_2d=[[1, 2, 3], [4]]), "numbers"),
        (json_of(pose_keypoints_2d=[10**400] * 54), "numbers"),
        (json_of(pose_keypoints_2d=[float("nan")] * 54), "no pixel"),
        (json_of(hand_left_keypoints_2d=[1.0] * 60), "21 × 3"),
        (json_of(face_keypoints_2d=[1e30] * 210), "no pixel"),
    ],
)
def test_openpose_json_of_another_layout_is_one_sentence(value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        read_openpose(value)
    assert "\n" not in str(refused.value)


def test_openpose_json_notes_what_it_leaves_out() -> None:
    value = to_openpose([full_figure()], SIZE)
    with pytest.warns(UserWarning, match="animals are left out"):
        read_openpose({**value, "animals": [[1, 2, 3]]})
    with pytest.warns(UserWarning, match="list of 2 canvases"):
        read_openpose([value, value])


@pytest.mark.parametrize("at", [None, (500, 20, 1), (-3, 5, 1), (20, 20, 0)])
def test_openpose_json_without_a_point_on_the_canvas_is_noted(at: tuple | None) -> None:
    person = {} if at is None else {"pose_keypoints_2d": [*at] * BODY}
    value = {"canvas_width": SIZE[0], "canvas_height": SIZE[1], "people": [person]}
    with pytest.warns(UserWarning, match="its hint is empty"):
        read_openpose(value)
    with pytest.warns(UserWarning, match="has no people, so its hint is empty"):
        read_openpose({**value, "people": []})


def test_openpose_json_is_a_hint_as_a_dict_and_as_a_file(tmp_path: Path) -> None:
    value = to_openpose([full_figure()], SIZE)
    wanted = draw_people([read_openpose(value)[0][0]], SIZE)
    path = tmp_path / "people.JSON"
    path.write_text(json.dumps(value), encoding="utf-8-sig")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for source in (value, [value], path, str(path)):
            for name in ("pose", "openpose", "openpose_full"):
                assert (np.asarray(zeroconv.annotate(name, source)) == wanted).all()
                assert (np.asarray(annotate(name, source)) == wanted).all()
            for condition in ("pose", None):
                assert (np.asarray(open_hint(source, condition)) == wanted).all()
        alone = np.asarray(zeroconv.annotate("pose", value, hands=0, face=0))
        assert (alone == draw_people([full_figure().body], SIZE)).all()
        face = np.asarray(zeroconv.annotate("openpose_faceonly", value))
        assert set(np.unique(face)) == {0, 255} and (face[..., 0] == face[..., 2]).all()
    with pytest.raises(UserError, match="canny hint"):
        zeroconv.annotate("canny", value)
    with pytest.raises(UserError, match="0 or 1"):
        zeroconv.annotate("pose", value, hands=2)
    with pytest.raises(TypeError, match="low"):
        zeroconv.annotate("pose", value, low=2)
    with pytest.raises(UserError, match="backend posenet would read nothing"):
        zeroconv.annotate("pose", value, "posenet")
    with pytest.raises(UserError, match="empty"):
        zeroconv.annotate("pose", value, body=0, hands=0, face=0)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"people\.JSON"):
        zeroconv.annotate("pose", path)
    with pytest.raises(UserError, match=r"none\.json"):
        zeroconv.annotate("pose", tmp_path / "none.json")


# ---------------------------------------------------------------- drawing


def test_hands_are_rainbows_with_blue_points_and_faces_white_points() -> None:
    hand = np.zeros((HAND, 3), np.float32)
    for joint in range(HAND):  # fingers as rays
        finger, step = (joint - 1) // 4, (joint - 1) % 4 + 1
        hand[joint] = (256, 256, 1) if joint == 0 else (80 + 80 * finger, 256 - 50 * step, 1)
    face = np.zeros((FACE, 3), np.float32)
    face[:2] = (40, 400, 1), (60, 400, 1)
    picture = draw_people([Figure(np.zeros((BODY, 3), np.float32), None, hand, face)], (512, 512))

    assert len(BONES) == len(set(BONE_COLOURS)) == 20
    assert BONES[:6] == ((0, 1), (1, 2), (2, 3), (3, 4), (0, 5), (5, 6))
    assert BONE_COLOURS[0] == (255, 0, 0) and BONE_COLOURS[10] == (0, 255, 255)
    seen = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    assert seen == {(0, 0, 0), (0, 0, 255), (255, 255, 255), *BONE_COLOURS}
    for joint in range(HAND):
        x, y = hand[joint, :2].astype(int)
        assert tuple(picture[y, x]) == tuple(picture[y, x + 4]) == (0, 0, 255)
    white = (picture == 255).all(axis=2)
    assert white[400, 40] and white[400, 43] and not white[400, 45]


@pytest.mark.parametrize("seed", range(4))
def test_the_mirror_exchanges_limbs_and_leaves_hands_and_faces(seed: int) -> None:
    """A whole figure's drawing in a mirror is the mirrored figure's, but for pixels of rounding."""
    rng = np.random.default_rng(seed)
    right = [(200, 150), (150, 220), (90, 260)], [(220, 300), (200, 400), (190, 480)]
    left = [[(500 - x, y + 7) for x, y in limb] for limb in right]
    at = [(250, 80), (250, 150), *right[0], *left[0], *right[1], *left[1]]
    at += [(235, 65), (265, 66), (215, 70), (290, 72)]
    body = np.array([(*point, 1) for point in at], np.float32)
    fingers = [(joint // 4 * 9 - 20, joint % 4 * 10 + 12) for joint in range(20)]
    offsets = np.array([(0, 0), *fingers]) + rng.uniform(-2, 2, (HAND, 2))
    hand = np.column_stack([body[4, :2] + offsets, np.ones(HAND)]).astype(np.float32)
    face = points(FACE, seed + 9, 215, 285)
    face[:, 1] -= 170
    figure = Figure(body, None, hand, face)
    there = mirror_hint(draw_people([figure], (512, 512))).astype(int)

    def turned(part: np.ndarray) -> np.ndarray:
        return np.column_stack([511 - part[:, 0], part[:, 1:]]).astype(np.float32)

    (other,) = mirror_people([body], 511)
    back = draw_people([Figure(other, turned(hand), None, turned(face))], (512, 512)).astype(int)
    assert (np.abs(there - back).max(axis=2) > 0).mean() < 0.02
    blue = (0, 0, 255)
    assert ((there == blue).all(2) & (back == blue).all(2)).sum() > 500


def test_a_knee_without_hands_still_becomes_the_other_knee() -> None:
    body = np.zeros((BODY, 3), np.float32)
    body[9] = (30, 30, 1)  # the right knee, cyan
    mirrored = mirror_hint(draw_people([body], (64, 64)))
    assert tuple(mirrored[30, 63 - 30]) == COLOURS[12] == (0, 0, 255)
