"""The whole of `evaluate` on the embedded models, a few pictures: a report's form, its repeatability, its order."""

from __future__ import annotations

import numpy as np
import pytest

from zeroconv import playroom
from zeroconv.backbones import load_backbone
from zeroconv.errors import UserError
from zeroconv.evaluation import evaluate
from zeroconv.evaluation.adherence import colour_of, read_names, references, single_object_scenes
from zeroconv.evaluation.pairs import load_pairs


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("playroom")


def test_a_trained_control_beats_chance_and_the_report_repeats(backbone):
    options = {"base": backbone, "count": 6, "count_none": 3, "steps": 6}
    report = evaluate("playroom-canny", **options)
    assert report == evaluate("playroom-canny", **options)
    f1 = report["metrics"]["f1_1px"]
    assert set(f1) == {"own", "shuffled", "none", "ceiling"}
    assert f1["own"]["mean"] > 1.5 * f1["shuffled"]["mean"] and f1["ceiling"]["mean"] > 0.7
    assert report["n"] == {"own": 6, "shuffled": 6, "none": 3, "ceiling": 6}


def test_the_depth_read_out_knows_the_true_scene_from_another(backbone):
    report = evaluate("playroom-depth", base=backbone, count=6, count_none=0, steps=4)["metrics"]["rmse"]
    assert report["ceiling"]["mean"] < 0.6 * report["shuffled"]["mean"]
    assert report["own"]["mean"] < report["shuffled"]["mean"]


def test_colours_are_read_right_from_real_pictures():
    known = references(single_object_scenes("train", 120, 64))
    scenes = single_object_scenes("val", 40, 64)
    right = read_names([scene.image for scene in scenes], scenes, known)
    assert all(np.mean(values) > 0.9 for values in right.values())
    # pictures of other scenes do not have the colours of these
    other = read_names([scene.image for scene in scenes[1:] + scenes[:1]], scenes, known)
    assert np.mean(other["wall"]) < 0.5
    assert colour_of(scenes[0].image, np.ones((64, 64), bool)).shape == (3,)


def test_unknown_names_are_told(backbone):
    with pytest.raises(UserError, match="empty"):
        evaluate("playroom-canny", base=backbone, prompts="none")
    with pytest.raises(UserError, match="playroom:test"):
        load_pairs("coco", "canny", 4, 64)
    assert len(load_pairs("stickers", "canny", 3, 128)) == 3
    assert len(playroom.SPLITS) == 3
