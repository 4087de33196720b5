"""Guidance and its scale where nothing is said: they belong to the base."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.helpers.tiny import randomise_, tiny_backbone
from tests.helpers.tiny_folder import save_backbone
from zeroconv.backbones import load_backbone
from zeroconv.backbones.loading.folder import PLAYROOM, _defaults_of
from zeroconv.backbones.loading.locate import ASSETS
from zeroconv.backbones.protocol import Defaults
from zeroconv.control import ControlNet
from zeroconv.evaluation import evaluate
from zeroconv.generation import Control, generate
from zeroconv.generation.guidance import settled

HINT = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["playroom", "playroom-pencil"])
def test_defaults_of_the_playroom_are_those_of_its_figures(name) -> None:
    assert load_backbone(name).defaults == PLAYROOM == Defaults("cond", 4.0)


def test_defaults_of_a_base_that_was_trained_on_from_the_playroom_are_the_playrooms(
    tmp_path,
) -> None:
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        (tmp_path / part).symlink_to(ASSETS / "playroom" / part)
    assert load_backbone(tmp_path).defaults == PLAYROOM


def test_defaults_of_other_bases_are_those_of_other_programs(tmp_path) -> None:
    save_backbone(tmp_path / "base")
    assert load_backbone(tmp_path / "base").defaults == Defaults("both", 7.5)
    for text in ("", "[]", '{"model": 3}', json.dumps({"model": {"vocab": {"a": 0}}})):
        (tmp_path / "base" / "tokenizer" / "tokenizer.json").write_text(text)
        assert _defaults_of(tmp_path / "base") == Defaults("both", 7.5)


@pytest.mark.parametrize("defaults", [PLAYROOM, Defaults(), Defaults("guess", 2.0)])
def test_generate_uses_the_defaults_of_its_backbone(defaults) -> None:
    backbone = tiny_backbone()
    backbone.defaults = defaults
    net = randomise_(ControlNet.from_backbone(backbone, condition="canny"), 0.2)
    few = {"steps": 2, "output": "tensor"}

    def make(**options) -> np.ndarray:
        return generate(backbone, "a", [Control(net, HINT)], **few, **options)[0].numpy()

    expected = make(guidance=defaults.guidance, cfg=defaults.cfg)
    assert np.array_equal(make(), expected) and np.array_equal(
        make(guidance=None, cfg=None), expected
    )
    assert np.array_equal(make(cfg=3.0), make(guidance=defaults.guidance, cfg=3.0))
    assert np.array_equal(
        make(guidance="resolution"), make(guidance="resolution", cfg=defaults.cfg)
    )
    assert settled(backbone, None, 0.0) == (defaults.guidance, 0.0)


def test_evaluate_reports_the_defaults_it_used() -> None:
    few = {"count": 2, "count_none": 0, "steps": 1, "varied": 0}
    report = evaluate("canny", **few)
    assert (report["guidance"], report["cfg"]) == ("cond", 4.0)
    report = evaluate("canny", **few, guidance="resolution", cfg=2.0)
    assert (report["guidance"], report["cfg"]) == ("resolution", 2.0)
