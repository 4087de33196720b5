"""Maps as hints and back, people as OpenPose draws and writes them."""

from __future__ import annotations

import numpy as np
import pytest

from zeroconv import playroom
from zeroconv.conditions import CONDITIONS, maps, openpose, pose
from zeroconv.errors import UserError
from zeroconv.playroom import CLASSES, KEYPOINTS

SEED = 9_000_005  # a scene with a sitting person, a ball and a cube


@pytest.fixture(scope="module")
def scene():
    return playroom.render(SEED)


def test_depth_there_and_back(scene):
    back = maps.hint_to_depth(maps.depth_to_hint(scene.depth))
    near = scene.depth < 7.9
    assert np.abs(back / scene.depth - 1)[near].max() < 0.02
    assert maps.depth_to_hint(np.float32([[1, 2, 4, 8, 20]])).tolist() == [[255, 255, 85, 0, 0]]
    relative = maps.relative_to_hint(np.float32([[0.1, 0.3, 0.5]]))
    assert (
        relative.tolist() == [[0, 128, 255]] and maps.relative_to_hint(np.ones((2, 2))).max() == 0
    )


def test_normals_there_and_back_and_their_colours(scene):
    hint = maps.normal_to_hint(scene.normal)
    back = maps.hint_to_normal(hint)
    assert CONDITIONS["normal"].score(scene.normal, back)["angle"] < 0.3
    # red to the left, green up, blue to the viewer
    left, up, front = maps.normal_to_hint(np.float32([[[-1, 0, 0], [0, 1, 0], [0, 0, 1]]]))[0]
    assert left[0] == up[1] == front[2] == 255 and left[1] == left[2] == 128


def test_classes_there_and_back_and_nothing_guessed(scene):
    hint = maps.classes_to_hint(scene.segmentation)
    assert (maps.hint_to_classes(hint) == scene.segmentation).all()
    assert len(maps.PLAYROOM_COLOURS) == len(CLASSES) == len(set(maps.PLAYROOM_COLOURS))
    blurred = hint.copy()
    blurred[10, 10] += 1  # what JPEG and smooth resizing do
    with pytest.raises(UserError, match="PNG"):
        maps.hint_to_classes(blurred)
    with pytest.raises(ValueError, match="no colour"):
        maps.classes_to_hint(np.array([[7]]))
    assert maps.ade20k_colours().shape == (150, 3)
    assert tuple(maps.ade20k_colours()[12]) == maps.PLAYROOM_COLOURS[CLASSES.index("person")]


def test_people_are_drawn_where_they_are(scene):
    assert len(pose.LIMBS) == 17 and len(pose.COLOURS) == 18 == len(KEYPOINTS)
    hint = pose.draw_people(scene.keypoints, (128, 128))
    for joint, (x, y, seen) in enumerate(scene.keypoints[0]):
        if seen and KEYPOINTS[joint] in ("left ankle", "right wrist", "right elbow"):
            assert tuple(hint[int(y), int(x)]) == pose.COLOURS[joint]
    person = scene.keypoints[0].copy()
    person[:, 2] = 0
    assert pose.draw_people([person], (128, 128)).max() == 0


def test_a_mirrored_pose_exchanges_left_and_right(scene):
    turned = pose.mirror_people(scene.keypoints, 128)
    left, right = KEYPOINTS.index("left wrist"), KEYPOINTS.index("right wrist")
    assert turned[0][left, 0] == pytest.approx(128 - scene.keypoints[0][right, 0])
    there = CONDITIONS["pose"].mirror(pose.draw_people(scene.keypoints, (128, 128)))
    back = pose.draw_people(turned, (128, 128))
    # the same colours in all but the pixels where one limb covers another, or a circle rounds
    # to one side
    assert (there != back).any(-1).sum() < 0.35 * (back > 0).any(-1).sum()
    assert (pose.mirror_hint(there) == pose.draw_people(scene.keypoints, (128, 128))).all()
    for a, b in enumerate(pose.MIRRORED):
        assert pose.MIRRORED[b] == a
        assert (
            KEYPOINTS[a].replace("left", "X").replace("right", "left").replace("X", "right")
            == KEYPOINTS[b]
        )


def test_openpose_json_there_and_back(scene):
    value = openpose.to_openpose(scene.keypoints, (128, 128))
    people, size = openpose.from_openpose(value)
    assert size == (128, 128) and len(people) == len(scene.keypoints)
    known = scene.keypoints[0][:, 2] > 0
    assert np.abs(people[0] - scene.keypoints[0])[known].max() < 0.001
    shares = [p / np.float32([128, 128, 1]) for p in people]
    again, _ = openpose.from_openpose(
        {**value, "people": [{"pose_keypoints_2d": s.ravel().tolist()} for s in shares]}
    )
    assert np.abs(again[0] - people[0])[known].max() < 0.01
    with pytest.raises(UserError, match="OpenPose"):
        openpose.from_openpose({"people": [{"pose_keypoints_2d": [1, 2, 3]}]})
