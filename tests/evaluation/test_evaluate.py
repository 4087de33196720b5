"""The whole of `evaluate` on the embedded models, a few pictures: a report's form, its
repeatability, its order.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from zeroconv.backbones import load_backbone
from zeroconv.errors import UserError
from zeroconv.evaluation import evaluate
from zeroconv.evaluation.adherence import colour_of, read_names, references, single_object_scenes
from zeroconv.evaluation.fidelity import COLUMNS, lifts, prompts_of, tabulate
from zeroconv.evaluation.likeness import clip_scores, make_features
from zeroconv.evaluation.page import picture_value, write_page
from zeroconv.evaluation.pairs import load_pairs
from zeroconv.evaluation.reading import as_picture, make_read


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("playroom")


@pytest.fixture(scope="module")
def canny(backbone):
    shown: list = []
    options = {"base": backbone, "count": 6, "count_none": 3, "steps": 6, "varied": 2}
    return evaluate("playroom-canny", pictures=shown, **options), shown[0], options


def test_a_trained_control_beats_chance_and_the_report_repeats(canny):
    report, _, options = canny
    assert report == evaluate("playroom-canny", **options)
    f1 = report["metrics"]["f1_1px"]
    assert tuple(f1) == COLUMNS and list(f1["own"]) == ["mean", "low", "high"]
    assert (
        f1["own"]["mean"] > 1.5 * f1["shuffled"]["mean"]
        and f1["real"]["mean"] == 1 > f1["ceiling"]["mean"] > 0.7
    )
    assert report["n"] == {"own": 6, "shuffled": 6, "none": 3, "ceiling": 6, "real": 6}
    lift = report["lift"]["f1_1px"]["over shuffled"]
    assert (
        lift["mean"] == pytest.approx(f1["own"]["mean"] - f1["shuffled"]["mean"])
        and lift["low"] > 0
    )
    assert set(report["pictures"]) == {"features", "fid", "kid", "diversity"}
    assert report["pictures"]["fid"]["ceiling"]["mean"] < report["pictures"]["fid"]["own"]["mean"]
    assert report["caption"]["wall"]["real"]["mean"] == 1
    json.dumps(report)


@pytest.mark.slow
def test_what_the_control_does_not_touch_is_made_once_for_several_calls(canny, monkeypatch):
    report, _, options = canny
    common: dict = {}
    assert evaluate("playroom-canny", common=common, **options) == report
    assert {key[0] for key in common} == {"pairs", "none", "ceiling"}
    # it would end here if it were called
    monkeypatch.setattr("zeroconv.evaluation.fidelity.through_vae", None)
    assert evaluate("playroom-canny", common=common, **options) == report
    with pytest.raises(TypeError):
        evaluate("playroom-canny", common=common, **{**options, "count": 5})  # other pictures


def test_a_page_stands_alone_and_shows_every_figure(canny):
    report, shown, _ = canny
    page = write_page(report, shown)
    assert page.count("data:image/png;base64,") == 4 * 6 * 3 and "http" not in page
    assert f"{report['metrics']['f1_1px']['own']['mean']:.3f}" in page and "Worst" in page


@pytest.mark.parametrize(
    ("condition", "metric"), [("depth", "delta1"), ("pose", "pck"), ("segmentation", "miou")]
)
def test_what_a_network_reads_lifts_above_chance(backbone, condition, metric):
    report = evaluate(
        f"playroom-{condition}", base=backbone, count=6, count_none=0, steps=6, varied=0
    )
    values = report["metrics"][metric]
    assert values["own"]["mean"] > values["shuffled"]["mean"] and values["real"]["mean"] > 0.8
    assert report["judge"] == "playroom reader" and "none" not in values
    assert "over none" not in report["lift"][metric]


def test_lifts_point_the_same_way_whatever_the_metric():
    stats = {"own": [{"angle": 5.0, "f1": 0.9}] * 4, "shuffled": [{"angle": 9.0, "f1": 0.2}] * 4}
    by_metric = lifts(stats)
    assert by_metric["angle"]["over shuffled"]["mean"] == pytest.approx(4)
    assert by_metric["f1"]["over shuffled"]["mean"] == pytest.approx(0.7)
    assert tabulate(stats)["angle"]["own"]["mean"] == 5
    assert picture_value(np.array([[1.0, 3.0, 0.0], [2.0, 3.0, 0.0]])) == pytest.approx(0.75)


def test_the_papers_four_prompt_settings():
    pairs = load_pairs("playroom:test", "canny", 3, 64)
    captions = [pair.caption for pair in pairs]
    assert prompts_of(pairs, "perfect") == captions and prompts_of(pairs, "none") == [""] * 3
    assert all(a != b for a, b in zip(prompts_of(pairs, "conflicting"), captions, strict=True))
    assert len(set(prompts_of(pairs, "insufficient"))) == 1


def test_pairs_of_every_condition_bring_what_their_score_needs():
    for condition in ("canny", "pose", "segmentation", "depth", "normal", "tile", "inpaint"):
        (pair,) = load_pairs("playroom:test", condition, 1, 64)
        read, asked = make_read(condition)
        reading = read([pair.image])[0]
        assert as_picture(condition, reading, pair.image.size).size == (64, 64) and asked
    # more than there are: on several backgrounds
    assert len(load_pairs("stickers", "canny", 30, 64)) == 30
    with pytest.raises(UserError, match="no more"):
        load_pairs("playroom:test:3", "canny", 5, 64)


def test_colours_are_read_right_from_real_pictures():
    known = references(single_object_scenes("train", 120, 64))
    scenes = single_object_scenes("val", 40, 64)
    right = read_names([scene.image for scene in scenes], scenes, known)
    assert all(np.mean(values) > 0.9 for values in right.values())
    # pictures of other scenes do not have the colours of these
    other = read_names([scene.image for scene in scenes[1:] + scenes[:1]], scenes, known)
    assert np.mean(other["wall"]) < 0.5
    assert colour_of(scenes[0].image, np.ones((64, 64), bool)).shape == (3,)


def test_features_of_other_networks(tmp_path: Path):
    """A vision model and a CLIP from local folders, tiny and random."""
    from transformers import (
        BitImageProcessor,
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        Dinov2Config,
        Dinov2Model,
    )  # fmt: skip

    from zeroconv.backbones.loading.locate import ASSETS

    pictures = [pair.image for pair in load_pairs("playroom:test", "canny", 3, 64)]
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    Dinov2Model(config).save_pretrained(tmp_path / "dino")
    BitImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    ).save_pretrained(tmp_path / "dino")
    extract, named = make_features(str(tmp_path / "dino"))
    assert extract(pictures).shape == (3, 16) and named.endswith("dino")

    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {**small, "vocab_size": 4096, "max_position_embeddings": 48}
    clip = CLIPConfig(
        text_config=text,
        vision_config={**small, "image_size": 28, "patch_size": 14},
        projection_dim=8,
    )
    CLIPModel(clip).save_pretrained(tmp_path / "clip")
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(ASSETS / "playroom" / "tokenizer")
    processor = CLIPImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    )
    CLIPProcessor(processor, tokenizer).save_pretrained(tmp_path / "clip")
    scores = clip_scores(str(tmp_path / "clip"), ["a red ball", "grass", ""], {"own": pictures})
    assert 0 <= scores["own"]["mean"] <= 100
    for name, call in (
        ("features", lambda: make_features("/no/folder")),
        ("file", lambda: make_features("/no.pt")),
    ):
        with pytest.raises(UserError, match=r"no (vision model|feature network)"):
            call()
        assert name
    with pytest.raises(UserError, match="no CLIP"):
        clip_scores("/no/folder", [], {})


def test_evaluate_refuses_unknown_names(backbone):
    with pytest.raises(UserError, match="empty"):
        evaluate("playroom-canny", base=backbone, prompts="nonsense")
    with pytest.raises(UserError, match="data folder"):
        load_pairs("coco", "canny", 4, 64)


def test_a_saved_baseline_is_measured_like_a_control(backbone, tmp_path):
    """A new one is the frozen model: its pictures are those that are made without control."""
    from zeroconv.baselines import make_baseline

    make_baseline("side", backbone, condition="canny").save(tmp_path / "side")
    options = {"base": backbone, "count": 3, "steps": 3, "varied": 0}
    report = evaluate(str(tmp_path / "side"), guidance="cond", **options)
    f1 = report["metrics"]["f1_1px"]
    assert report["condition"] == "canny" and f1["own"] == f1["none"]
    with pytest.raises(UserError, match="choose both or cond"):
        evaluate(str(tmp_path / "side"), guidance="resolution", **options)
