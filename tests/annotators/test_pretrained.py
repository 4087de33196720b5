"""Models of transformers: their own code is never run, and no question is asked at the terminal."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from zeroconv.annotators import hub
from zeroconv.backbones.loading.tokenizer import load_tokenizer
from zeroconv.errors import UserError
from zeroconv.evaluation.likeness import clip_scores, make_features

CODE = (
    "from pathlib import Path\nPath({target!r}).write_text('ran')\nclass Net: pass\nclass Config: "
    "pass\n"
)
PIXELS = np.zeros((16, 16, 3), np.uint8)
CONFIGS = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
)


@pytest.fixture(autouse=True)
def a_person_who_says_yes(monkeypatch):
    """Whoever asks at the terminal gets `y`."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 20))
    hub._load.cache_clear()


def folder_with_code(folder: Path, name: str) -> Path:
    from transformers import Dinov2Config

    Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2).save_pretrained(folder)
    (folder / "code.py").write_text(CODE.format(target=str(folder / "ran")))
    kinds = (
        "AutoConfig",
        "AutoModel",
        "AutoModelForDepthEstimation",
        "AutoImageProcessor",
        "AutoProcessor",
    )
    path = folder / name
    config = json.loads(path.read_text()) if path.is_file() else {}
    config |= {"auto_map": dict.fromkeys(kinds, "code.Net"), "model_type": "own-kind"}
    path.write_text(json.dumps(config))
    return folder


READERS = {
    "depth": lambda folder: hub.depth(PIXELS, folder),
    "normal": lambda folder: hub.normal(PIXELS, folder),
    "segmentation": lambda folder: hub.segmentation(PIXELS, folder),
    "features": lambda folder: make_features(folder),
    "clip": lambda folder: clip_scores(folder, [""], {"own": [Image.new("RGB", (8, 8))]}),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_folder_that_brings_code_is_refused(tmp_path, reader, name):
    folder = folder_with_code(tmp_path / "model", name)
    with pytest.raises(UserError, match=r"brings code of its own .*auto_map"):
        READERS[reader](str(folder))
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "content", ["[]", "{", '{"model_type": 3}', '{"model_type": "dinov2", "hidden_size": "wide"}']
)
def test_a_folder_of_a_broken_config_is_one_sentence(tmp_path, reader, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError) as caught:
        READERS[reader](str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.fixture
def dino(tmp_path) -> Path:
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    Dinov2Model(config).save_pretrained(tmp_path / "dino")
    size = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    BitImageProcessor(**size).save_pretrained(tmp_path / "dino")
    return tmp_path / "dino"


def test_a_pickle_of_transformers_is_not_read(dino):
    state = load_file(dino / "model.safetensors")
    (dino / "model.safetensors").unlink()
    torch.save(state, dino / "pytorch_model.bin")
    with pytest.raises(UserError, match="no vision model that can be loaded"):
        make_features(str(dino))


def test_pretrained_nan_and_missing_weights_of_transformers_are_refused(dino):
    make_features(str(dino))
    state = load_file(dino / "model.safetensors")
    key = sorted(state)[0]
    save_file(
        {**state, key: state[key] * float("nan")},
        dino / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(UserError, match="no numbers"):
        make_features(str(dino))
    save_file(
        {k: v for k, v in state.items() if k != key},
        dino / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(UserError, match="lack"):
        make_features(str(dino))


def test_a_tokenizer_of_other_code_is_not_run(tmp_path):
    (tmp_path / "code.py").write_text(CODE.format(target=str(tmp_path / "ran")))
    config = {"auto_map": {"AutoTokenizer": ["code.Net", None]}, "tokenizer_class": "Net"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"cannot be read|has no words"):
        load_tokenizer(tmp_path)
    assert not (tmp_path / "ran").exists()
