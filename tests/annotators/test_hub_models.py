"""The families of `transformers` models that give depth, classes and normals: tiny ones with random
weights, saved to a folder, against the model and its processor called by hand.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from zeroconv import annotators
from zeroconv.annotators import hub
from zeroconv.conditions import maps
from zeroconv.errors import UserError

STAGES = ["stage1", "stage2", "stage3", "stage4"]
SIZE = {"height": 64, "width": 64}


@pytest.fixture(autouse=True)
def afresh() -> None:
    torch.manual_seed(0)
    hub._load.cache_clear()  # folders of tests are not distinct for ever


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def save(folder: Path, net: Any, processor: Any) -> str:
    net.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def by_hand(folder: str, kind: Any, pixels: np.ndarray) -> torch.Tensor:
    """Raw depth, bicubically in the picture's size."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        raw = kind.from_pretrained(folder).eval()(
            **processor(images=Image.fromarray(pixels), return_tensors="pt")
        )
    size = pixels.shape[:2]
    return torch.nn.functional.interpolate(
        raw.predicted_depth[None], size, mode="bicubic", align_corners=False
    )[0, 0]


def glpn(folder: Path) -> str:
    config = transformers.GLPNConfig(
        depths=[1] * 4,
        hidden_sizes=[8] * 4,
        num_attention_heads=[1] * 4,
        mlp_ratios=[2] * 4,
        decoder_hidden_size=8,
    )
    return save(
        folder, transformers.GLPNForDepthEstimation(config), transformers.GLPNImageProcessor()
    )


def dpt(folder: Path, backbone: str) -> str:
    made = {
        "dinov2": transformers.Dinov2Config(patch_size=16, reshape_hidden_states=False),
        "beit": transformers.BeitConfig(patch_size=16, reshape_hidden_states=False),
    }[backbone]
    small = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 64}
    for name, value in {**small, "intermediate_size": 16}.items():
        setattr(made, name, value)
    made = type(made)(**{**made.to_dict(), "out_features": STAGES, "out_indices": None})
    config = transformers.DPTConfig(
        backbone_config=made,
        neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8,
        image_size=64,
        num_hidden_layers=4,
        hidden_size=16,
    )
    return save(
        folder,
        transformers.DPTForDepthEstimation(config),
        transformers.DPTImageProcessor(size=SIZE),
    )


def test_metres_are_turned_into_inverse_depth(tmp_path: Path, pixels: np.ndarray) -> None:
    folder = glpn(tmp_path)
    metres = by_hand(folder, transformers.GLPNForDepthEstimation, pixels)
    assert metres.std() > 0
    assert np.allclose(hub.depth(pixels, folder), 1 / metres, rtol=1e-4)
    hint = np.asarray(annotators.annotate("depth", Image.fromarray(pixels), folder))[..., 0]
    # the nearest is white
    assert hint.flat[int(metres.argmin())] == 255 and hint.flat[int(metres.argmax())] == 0


@pytest.mark.parametrize(("backbone", "metric"), [("dinov2", True), ("beit", False)])
def test_dpt_says_by_its_backbone_which_way_is_far(
    tmp_path: Path, pixels: np.ndarray, backbone: str, metric: bool
) -> None:
    folder = dpt(tmp_path, backbone)
    raw = by_hand(folder, transformers.DPTForDepthEstimation, pixels)
    assert raw.std() > 0
    expected = 1 / np.maximum(raw.numpy(), 1e-3) if metric else raw.numpy()
    assert np.allclose(hub.depth(pixels, folder), expected, rtol=1e-4)


def test_the_setting_of_depth_anything_counts() -> None:
    metric = SimpleNamespace(model_type="depth_anything", depth_estimation_type="metric")
    relative = SimpleNamespace(model_type="depth_anything", depth_estimation_type="relative")
    assert hub._gives_metres(metric) and not hub._gives_metres(relative)


def swin() -> transformers.SwinConfig:
    return transformers.SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1] * 4,
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=STAGES,
    )


SMALL = {
    "num_queries": 6,
    "num_labels": 5,
    "hidden_dim": 32,
    "encoder_feedforward_dim": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_attention_heads": 2,
    "dim_feedforward": 32,
}


def mask2former(folder: Path) -> str:
    config = transformers.Mask2FormerConfig(
        backbone_config=swin(), feature_size=32, mask_feature_size=32, **SMALL
    )
    net = transformers.Mask2FormerForUniversalSegmentation(config)
    return save(folder, net, transformers.Mask2FormerImageProcessor(size=SIZE))


def upernet(folder: Path) -> str:
    backbone = transformers.ConvNextConfig(
        hidden_sizes=[8] * 4, depths=[1] * 4, out_features=STAGES
    )
    config = transformers.UperNetConfig(
        backbone_config=backbone,
        hidden_size=8,
        pool_scales=[1, 2],
        num_labels=5,
        auxiliary_in_channels=8,
        auxiliary_channels=8,
    )
    net = transformers.UperNetForSemanticSegmentation(config)
    return save(folder, net, transformers.SegformerImageProcessor(size=SIZE))


def oneformer(folder: Path) -> str:
    """With the alphabet of CLIP's tokenizer alone, and the file of classes in its own folder."""
    letters = [chr(i) for i in (*range(33, 127), *range(161, 173), *range(174, 256))]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "info.json").write_text(
        json.dumps({str(i): {"name": f"class {i}", "isthing": 0} for i in range(5)})
    )
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    pictures = transformers.OneFormerImageProcessor(
        size=SIZE, repo_path=str(folder), class_info_file="info.json", num_text=6, num_labels=5
    )
    config = transformers.OneFormerConfig(
        backbone_config=swin(),
        conv_dim=32,
        mask_dim=32,
        text_encoder_width=32,
        text_encoder_num_layers=1,
        text_encoder_vocab_size=520,
        is_training=False,
        query_dec_layers=1,
        **SMALL,
    )
    net = transformers.OneFormerForUniversalSegmentation(config)
    return save(folder, net, transformers.OneFormerProcessor(pictures, tokenizer))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (mask2former, "Mask2FormerForUniversalSegmentation"),
        (upernet, "UperNetForSemanticSegmentation"),
        (oneformer, "OneFormerForUniversalSegmentation"),
    ],
)
def test_classes_of_every_family(make, kind: str, tmp_path: Path, pixels: np.ndarray) -> None:
    folder = make(tmp_path)
    classes, names = hub.segmentation(pixels, folder)
    assert classes.shape == (40, 60) and classes.dtype == np.uint8 and classes.max() < 5
    assert names == [f"LABEL_{i}" for i in range(5)]
    net, _ = hub._load(
        folder, "AutoModelForSemanticSegmentation", "AutoModelForUniversalSegmentation"
    )
    assert type(net).__name__ == kind
    with pytest.warns(UserWarning, match="5 classes, not ADE20K's 150"):
        annotators.annotate("segmentation", Image.fromarray(pixels), folder)


def test_hub_model_with_more_classes_than_colours_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wide = lambda pixels, model: (np.full((4, 4), 300, np.uint16), ["?"] * 847)  # noqa: E731
    monkeypatch.setattr(hub, "segmentation", wide)
    with pytest.raises(UserError, match="847 classes"):
        annotators.annotate("segmentation", Image.new("RGB", (4, 4)), "many")


def test_cocos_classes_are_painted_in_cocos_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["person", *(f"class {i}" for i in range(1, 133))]
    classes = np.array([[0, 1], [79, 132]], np.uint8)
    monkeypatch.setattr(hub, "segmentation", lambda pixels, model: (classes, names))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hint = annotators.annotate("segmentation", Image.new("RGB", (2, 2)), "coco")
    wanted = [[(220, 20, 60), (119, 11, 32)], [(191, 162, 208), (250, 141, 255)]]
    assert (np.asarray(hint) == np.array(wanted)).all()
    assert len({tuple(c) for c in maps.coco_colours().tolist()}) == 133
    names[0] = "wall"  # another model of as many classes
    with pytest.warns(UserWarning, match="133 classes, not ADE20K's 150"):
        annotators.annotate("segmentation", Image.new("RGB", (2, 2)), "other")


def test_hub_model_of_another_kind_is_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    folder = glpn(tmp_path)
    with pytest.raises(
        UserError, match="glpn model of another kind than SemanticSegmentation or Universal"
    ):
        hub.segmentation(pixels, folder)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="no annotator that can be loaded"):
        hub.depth(pixels, folder)


def test_a_family_of_many_heads_is_asked_which_it_has(tmp_path: Path, pixels: np.ndarray) -> None:
    """A DPT that knows classes must not be read as depth through a head of random weights."""
    folder = dpt(tmp_path, "beit")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({**config, "architectures": ["DPTForSemanticSegmentation"]})
    )
    with pytest.raises(UserError, match="dpt model of another kind than DepthEstimation"):
        hub.depth(pixels, folder)


def test_a_normal_models_axes_are_brought_to_ours(
    pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A floor and a wall on the left, in computer vision's axes: y down, z away from the camera."""
    seen = np.zeros((40, 60, 3), np.float32)
    seen[:20] = np.array([1, 0, -1]) / 2**0.5  # the wall faces right and us
    seen[20:] = np.array([0, -1, -1]) / 2**0.5  # the floor faces up and us
    ours = hub.facing_viewer(seen)
    assert np.allclose(ours[0, 0], np.array([1, 0, 1]) / 2**0.5)
    assert np.allclose(ours[30, 0], np.array([0, 1, 1]) / 2**0.5)
    assert np.array_equal(hub.facing_viewer(ours), ours)

    class TinyForNormalEstimation(torch.nn.Module):
        config = SimpleNamespace(model_type="tiny")

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return pixel_values

    class Processor:
        def __call__(self, images: Image.Image, return_tensors: str) -> dict[str, torch.Tensor]:
            return {"pixel_values": torch.from_numpy(3 * seen).permute(2, 0, 1)[None, :, ::2, ::2]}

        def post_process_normal_estimation(
            self, out, source_sizes=None, target_sizes=None
        ) -> list[dict]:
            assert source_sizes == target_sizes == [(40, 60)]
            return [{"normals": torch.nn.functional.interpolate(out, target_sizes[0])[0]}]

    monkeypatch.setattr(
        hub, "_load", lambda model, *kinds: (TinyForNormalEstimation(), Processor())
    )
    assert np.allclose(hub.normal(pixels, "tiny"), ours, atol=1e-6)
