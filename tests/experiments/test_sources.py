"""Pictures that experiments train on: specs of recipes, and results of their own."""

from __future__ import annotations

import pytest

from experiments import sources
from experiments.sources import Source


def test_sources_name_their_training_and_validation() -> None:
    assert Source("playroom", "canny").train(64) == "playroom:train:64"
    assert Source("playroom", "canny").settings == {}
    assert Source("playroom", "pose").train(64) == "playroom:train:64?only=person"
    assert Source("playroom", "pose").settings == {
        "data__condition": "pose",
        "data__validation": '["playroom:val:64?only=person"]',
    }


def test_sources_lay_stickers_on_as_many_backgrounds_as_it_takes(monkeypatch) -> None:
    monkeypatch.setattr(sources, "open_dataset", lambda spec: range(5810))
    source = Source("stickers", "scribble", "folder")
    assert source.train(5810) == "stickers:folder?split=train&views=1&limit=5810"
    assert source.train(10_000) == "stickers:folder?split=train&views=2&limit=5000"
    assert source.settings["data__validation"] == '["stickers:folder?split=val&limit=64"]'
    assert source.scenes([]) is None


def test_sources_have_results_of_their_own() -> None:
    named = [Source(*it).suffix("fig10") for it in (
        ("playroom", "canny"), ("playroom", "pose"), ("stickers", "canny"), ("stickers", "pose")
    )]  # fmt: skip
    assert named == ["fig10", "fig10-pose", "fig10-stickers", "fig10-stickers-pose"]
    with pytest.raises(SystemExit, match="playroom or stickers"):
        Source("cats", "canny")
