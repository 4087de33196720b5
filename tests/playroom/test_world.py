"""The rendered world: the same for a seed, exact where geometry says what must be seen, described
in full.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from zeroconv import playroom
from zeroconv.conditions import maps
from zeroconv.errors import UserError
from zeroconv.playroom.renderer import AMBIENT, Camera
from zeroconv.playroom.world import CLASSES, ObjectSpec, SceneSpec

SEEDS = range(9_000_000, 9_000_024)


@pytest.fixture(scope="module")
def scenes():
    return [playroom.render(seed, 64) for seed in SEEDS]


def empty_room(*objects: ObjectSpec) -> SceneSpec:
    return SceneSpec(
        0, objects, "wooden", "grey", (0.5, 0.8, -0.33), (0.0, 1.5, 0.0), 0.0, 0.0, 6.0
    )


def test_a_seed_is_a_scene_in_any_process():
    code = "from zeroconv import playroom, playroom as p; import hashlib; s = p.render(42, 64); "
    code += (
        "print(hashlib.sha256(s.image.tobytes() + s.depth.tobytes() + "
        "s.caption.encode()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    import hashlib

    scene = playroom.render(42, 64)
    assert (
        hashlib.sha256(
            scene.image.tobytes() + scene.depth.tobytes() + scene.caption.encode()
        ).hexdigest()
        == other
    )
    assert playroom.render(43, 64).image.tobytes() != scene.image.tobytes()


def test_the_fast_path_and_the_pool_give_the_same_pictures():
    pictures = playroom.render_many(list(SEEDS) * 2, 64, workers=2)
    for seed, (pixels, caption) in zip(SEEDS, pictures, strict=False):
        scene = playroom.render(seed, 64)
        assert np.array_equal(pixels, np.asarray(scene.image)) and caption == scene.caption


def test_depth_of_the_empty_room_is_its_closed_form():
    scene = playroom.render_spec(empty_room(), 64)
    # slope of a row's rays: the camera looks straight ahead
    down = -((np.arange(64) + 0.5) / 64 - 0.5) / 1.08
    expected = np.where(down < -1.5 / 6.0, 1.5 / np.maximum(-down, 1e-9), 6.0)
    assert np.allclose(scene.depth, expected[:, None], rtol=1e-4)
    assert np.array_equal(
        scene.segmentation == 1, np.broadcast_to((down < -1.5 / 6.0)[:, None], (64, 64))
    )
    assert np.allclose(scene.normal[-1, 0], (0, 1, 0)) and np.allclose(
        scene.normal[0, 0], (0, 0, 1)
    )


def test_the_outline_of_the_rooms_corner_ends_at_a_thing():
    cube = ObjectSpec("cube", "red", "large", x=0.0, z=4.0, height=1.1, radius=0.7, yaw=0.0)
    # seen from the front: one face, and its top
    scene = playroom.render_spec(empty_room(cube), 128)
    (corner,) = np.flatnonzero(np.diff(scene.segmentation[:, 2].astype(int)))
    row, inside = scene.outline[corner], scene.instances[corner] == 1
    assert row[~inside].mean() > 250 and inside.sum() > 20
    assert not row[inside][2:-2].any()


def test_a_ball_stands_where_it_projects_and_is_as_deep_as_it_is_far():
    ball = ObjectSpec("ball", "red", "large", x=0.5, z=4.0, height=1.0, radius=0.5, yaw=0.0)
    spec = empty_room(ball)
    scene = playroom.render_spec(spec, 128)
    x, y, depth = Camera.of(spec).project(np.float32([0.5, 0.5, 4.0]))
    rows, columns = np.nonzero(scene.instances == 1)
    assert abs(columns.mean() + 0.5 - x * 128) < 1 and abs(rows.mean() + 0.5 - y * 128) < 1
    assert depth == pytest.approx(4.0) and scene.depth[scene.instances == 1].min() == pytest.approx(
        3.5, abs=0.02
    )
    radius = np.sqrt((scene.instances == 1).sum() / np.pi)
    assert radius == pytest.approx(0.5 * 1.08 * 128 / 4.0, rel=0.05)


def test_shadow_falls_away_from_the_light():
    ball = ObjectSpec("ball", "red", "large", x=0.0, z=4.0, height=1.0, radius=0.5, yaw=0.0)
    lit = np.asarray(playroom.render_spec(empty_room(), 128).image).astype(int).sum(-1)
    scene = playroom.render_spec(empty_room(ball), 128)
    darker = lit - np.asarray(scene.image).astype(int).sum(-1)
    shadow = (darker > 40) & (scene.segmentation == 1)
    assert shadow.sum() > 50 and np.nonzero(shadow)[1].mean() < 64  # the light comes from the right
    assert AMBIENT < 1


def test_maps_agree_with_each_other(scenes):
    for scene in scenes:
        assert (
            scene.depth.shape
            == scene.segmentation.shape
            == scene.instances.shape
            == scene.outline.shape
            == (64, 64)
        )
        assert np.allclose(np.linalg.norm(scene.normal, axis=-1), 1, atol=1e-3)
        grid = ((np.arange(64) + 0.5) / 64 - 0.5) / 1.08
        rays = np.stack(
            [
                np.broadcast_to(grid, (64, 64)),
                np.broadcast_to(-grid[:, None], (64, 64)),
                -np.ones((64, 64)),
            ],
            -1,
        )
        assert ((scene.normal * rays).sum(-1) < 1e-3).all()  # nothing is seen from behind
        for number, thing in enumerate(scene.objects, start=1):
            classes = np.unique(scene.segmentation[scene.instances == number])
            assert classes.size == 0 or classes.tolist() == [CLASSES.index(thing.kind)]
        assert not (scene.segmentation[scene.instances == 0] > 1).any()
        assert set(np.unique(scene.outline)) == {0, 255}


def test_every_thing_can_be_seen(scenes):
    seen = [
        (scene.instances == i).sum() for scene in scenes for i in range(1, len(scene.objects) + 1)
    ]
    assert min(seen) > 0 and np.median(seen) > 100  # of 4096 pixels


def test_key_points_lie_on_their_person_and_sides_are_the_person_s():
    inside, total, mirrored = 0, 0, []
    for seed in range(60):
        scene = playroom.render(seed, 128)
        people = [i for i, thing in enumerate(scene.objects, start=1) if thing.kind == "person"]
        for number, points in zip(people, scene.keypoints, strict=True):
            assert points.shape == (18, 3)
            seen = points[points[:, 2] == 2]
            x, y = seen[:, 0].astype(int), seen[:, 1].astype(int)
            inside, total = inside + (scene.instances[y, x] == number).sum(), total + len(seen)
            if scene.objects[number - 1].action == "standing":
                # facing us, the right shoulder is on the left
                mirrored.append(points[2, 0] < points[5, 0])
    assert total > 200 and inside / total > 0.98
    assert len(mirrored) > 3 and all(mirrored)


def test_sizes_show_the_same_scene():
    for seed in range(6):
        small, large = playroom.render(seed, 64), playroom.render(seed, 128)
        assert (small.segmentation == large.segmentation[1::2, 1::2]).mean() > 0.97
        picture = np.asarray(large.image, np.float32).reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
        assert np.abs(picture - np.asarray(small.image)).mean() < 3
    with pytest.raises(UserError, match="64, 128, 256"):
        playroom.render(0, 100)


def test_captions_name_everything(scenes):
    for scene in scenes:
        assert scene.caption in scene.captions and len(set(scene.captions)) >= 5
        for caption in scene.captions:
            assert scene.floor in caption and scene.wall in caption and len(caption.split()) <= 50
            assert all(playroom.phrase(thing) in caption for thing in scene.objects)


def test_the_world_is_varied():
    specs = [playroom.sample_scene(seed) for seed in range(400)]
    things = [thing for spec in specs for thing in spec.objects]
    assert {len(spec.objects) for spec in specs} == {1, 2, 3, 4}
    assert {t.kind for t in things} == set(playroom.KINDS) and {t.colour for t in things} == set(
        playroom.COLOURS
    )
    assert {t.action for t in things if t.kind == "person"} == set(playroom.ACTIONS)
    assert {spec.floor for spec in specs} == set(playroom.FLOORS) and {
        spec.wall for spec in specs
    } == set(playroom.WALLS)
    for spec in specs:
        for a, b in zip(spec.objects, spec.objects[1:], strict=False):
            assert np.hypot(a.x - b.x, a.z - b.z) > a.radius + b.radius


def test_splits_never_overlap():
    seeds = {name: set(playroom.split_seeds(name, 1000)) for name in playroom.SPLITS}
    assert (
        not seeds["train"] & seeds["val"]
        and not seeds["val"] & seeds["test"]
        and not seeds["train"] & seeds["test"]
    )
    assert playroom.split_seeds("test", 2, start=5) == [9_000_005, 9_000_006]
    with pytest.raises(ValueError, match="has 1000000 scenes"):
        playroom.split_seeds("val", 2, start=999_999)


def test_depth_hints_are_nearer_is_whiter_on_one_scale():
    hint = maps.depth_to_hint(np.float32([[1.0, 2.0, 4.0, 8.0, 20.0]]))
    assert hint.dtype == np.uint8 and hint.tolist() == [[255, 255, 85, 0, 0]]
