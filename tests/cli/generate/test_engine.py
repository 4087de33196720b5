"""`--engine` of generate, upscale and evaluate: recorded, read by `--from`, refused."""

from __future__ import annotations

import importlib.util

import pytest

from zeroconv.generation import engines
from zeroconv.generation.engines import openvino
from zeroconv.generation.metadata.record import read_info


@pytest.fixture
def asked(monkeypatch):
    """As if OpenVINO were installed; how often it was asked for. Torch computes."""
    made = []

    def engine(backbone):
        made.append(backbone.name)
        return engines.Torch(backbone)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(openvino, "OpenVino", engine)
    return made


def test_engine_is_kept_in_the_picture_and_read_again(zeroconv, models, asked, tmp_path):
    def about(name, *words):
        made = zeroconv("generate", *words, "--out", tmp_path / name)
        assert made.exit_code == 0, made.output
        return read_info(tmp_path / name)

    quick = ("a ball", "--base", models / "base", "--steps", 1)
    assert about("graph.png", *quick, "--engine", "openvino")["engine"] == "openvino"
    count = len(asked)
    assert count >= 2  # of the steps, and of decoding
    assert about("again.png", "--from", tmp_path / "graph.png")["engine"] == "openvino"
    assert len(asked) == 2 * count
    other = about("other.png", "--from", tmp_path / "graph.png", "--engine", "torch")
    assert other["engine"] == "torch" and len(asked) == 2 * count


@pytest.mark.parametrize("command", ["generate", "upscale", "evaluate", "serve"])
def test_engine_that_there_is_not_is_refused(zeroconv, photo, tmp_path, command, monkeypatch):
    words = {
        "generate": ("a ball", "--out", tmp_path / "a.png"),
        "upscale": (photo, "--out", tmp_path / "a.png"),
        "evaluate": ("canny",),
        "serve": ("--data", tmp_path / "studio"),
    }[command]
    refused = zeroconv(command, *words, "--engine", "turbo")
    assert refused.exit_code == 2 and "choose one of torch, openvino" in refused.output
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused = zeroconv(command, *words, "--engine", "openvino")
    assert refused.exit_code == 2 and "pip install 'zeroconv[openvino]'" in refused.output
