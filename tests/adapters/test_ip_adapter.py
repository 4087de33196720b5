"""An IP-Adapter's files, its image encoder, and its use: scale, window, mask, beside controls."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.helpers.tiny import randomise_, tiny_backbone, tiny_backbone_xl
from tests.helpers.tiny_ip_adapter import tiny_ip_adapter, tiny_vision
from zeroconv.adapters import ImageEncoder, IPAdapter
from zeroconv.checkpoints.controls.ip_adapter import read_ip_adapter
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.generation import Control, ImagePrompt, ReferencePicture, generate
from zeroconv.layers.attention import Switch, attached, attentions


def picture(seed: int) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, IPAdapter, Path]:
    """A base, an adapter for it, and their folder: adapter.bin and image_encoder/."""
    folder = tmp_path_factory.mktemp("adapter")
    backbone = tiny_backbone()
    torch.save(tiny_ip_adapter("base", backbone), folder / "adapter.bin")
    tiny_vision().save_pretrained(folder / "image_encoder")
    return backbone, IPAdapter.load(folder / "adapter.bin", backbone=backbone), folder


def pictures(backbone: Any, adapters: list[Any], controls: Any = (), **more: Any) -> Tensor:
    given: dict[str, Any] = {"steps": 3, "scheduler": "ddim", "output": "tensor", "cfg": 4.0}
    given |= {"height": 64, "width": 64, **more}
    prompts = ["a ball", "a cube"]
    return torch.stack(generate(backbone, prompts, controls, adapters=adapters, **given))


def test_image_prompt_heeds_scale_window_and_region(world: Any) -> None:
    backbone, adapter, _ = world
    plain = pictures(backbone, [])
    whole = pictures(backbone, [ImagePrompt(adapter, picture(1))])
    assert not torch.allclose(whole, plain, atol=1e-2)
    assert torch.equal(pictures(backbone, [ImagePrompt(adapter, picture(1), 0.0)]), plain)
    never = ImagePrompt(adapter, picture(1), start=0.9, end=0.95)
    assert torch.equal(pictures(backbone, [never]), plain)
    everywhere = ImagePrompt(adapter, picture(1), region=torch.ones(64, 64))
    assert torch.allclose(pictures(backbone, [everywhere]), whole, atol=1e-5)
    nowhere = ImagePrompt(adapter, picture(1), region=torch.zeros(64, 64))
    assert torch.allclose(pictures(backbone, [nowhere]), plain, atol=1e-5)
    each = pictures(backbone, [ImagePrompt(adapter, picture(1), [1.0, 0.0])])
    assert torch.allclose(each[0], whole[0], atol=1e-5)
    assert torch.allclose(each[1], plain[1], atol=1e-5)


def test_image_prompt_mask_acts_where_it_is_white(world: Any) -> None:
    """On one attention over 8×8 positions: a column that the mask cuts in half gets half."""
    backbone, adapter, _ = world
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
    layer = attentions(backbone.unet)[name]
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :28] = 1  # three columns and a half
    x, text = torch.randn(4, 64, 16), torch.randn(4, 16, 32)
    outputs = []
    with torch.no_grad():
        tokens = [part.expand(2, -1, -1) for part in adapter.embed([picture(1)])]
        for each in (None, mask):
            switch = Switch(factor=0.5, pictures=2, mask=each, size=(8, 8))
            with attached(backbone.unet, [adapter.changes(*tokens, switch)]):
                outputs.append(layer(x, text))
        whole, part = (output - layer(x, text) for output in outputs)
    share = torch.tensor([1.0, 1, 1, 0.5, 0, 0, 0, 0]).repeat(8)[None, :, None]
    assert torch.allclose(part, share * whole, atol=1e-6)
    assert float(whole.abs().max()) > 0.01


def test_image_prompt_of_one_picture_a_prompt(world: Any) -> None:
    backbone, adapter, _ = world
    first, second = (pictures(backbone, [ImagePrompt(adapter, picture(seed))]) for seed in (1, 2))
    both = pictures(backbone, [ImagePrompt(adapter, [picture(1), picture(2)])])
    assert torch.allclose(both, torch.stack([first[0], second[1]]), atol=1e-4)


def test_image_prompt_acts_where_prompt_and_negative_are_the_same(world: Any) -> None:
    backbone, adapter, _ = world
    same: dict[str, Any] = {"negative": ["a ball", "a cube"]}
    weak, strong = (
        pictures(backbone, [ImagePrompt(adapter, picture(1))], cfg=cfg, **same) for cfg in (2, 6)
    )
    assert not torch.allclose(weak, strong, atol=1e-2)  # guidance is between the pictures


def test_image_prompt_beside_controls_and_references_leaves_the_base_as_it_was(world: Any) -> None:
    backbone, adapter, _ = world
    plain = pictures(backbone, [])
    net = randomise_(ControlNet.from_backbone(backbone)).eval()
    control = Control(net, torch.rand(3, 64, 64))
    prompt = ImagePrompt(adapter, picture(1))
    reference = ReferencePicture(picture(2).resize((64, 64)))
    each = [
        pictures(backbone, adapters, controls, guidance=guidance)
        for adapters, controls, guidance in (
            ([prompt], [], "both"),
            ([], [control], "both"),
            ([prompt], [control], "both"),
            ([prompt], [control], "cond"),
            ([prompt, reference], [control], "both"),
        )
    ]
    for i, one in enumerate(each):
        assert all(not torch.allclose(one, other, atol=1e-3) for other in each[i + 1 :])
    assert torch.equal(pictures(backbone, []), plain)


def test_image_encoder_is_looked_for_beside_the_file_and_must_fit(
    world: Any, tmp_path: Path
) -> None:
    backbone, _, folder = world
    path = shutil.copy(folder / "adapter.bin", tmp_path / "adapter.bin")
    with pytest.raises(UserError, match=r"needs an image encoder.*--image-encoder FOLDER"):
        IPAdapter.load(path, backbone=backbone)
    IPAdapter.load(path, backbone=backbone, image_encoder=folder / "image_encoder")
    narrow = ImageEncoder(tiny_vision(projection_dim=16))
    with pytest.raises(UserError, match="gives 16 numbers"):
        IPAdapter.load(path, backbone=backbone, image_encoder=narrow)
    with pytest.raises(UserError, match="is no image encoder"):
        IPAdapter.load(path, backbone=backbone, image_encoder=tmp_path)


def broken(change: str) -> dict[str, Any]:
    """Two dicts with one thing wrong."""
    parts: dict[str, Any] = tiny_ip_adapter("base", tiny_backbone())
    if change == "face":
        parts["image_proj"] = {"norm.weight": torch.ones(4), "proj.2.weight": torch.ones(4, 4)}
    elif change == "missing":
        del parts["ip_adapter"]["1.to_k_ip.weight"]
    elif change == "nan":
        parts["ip_adapter"]["1.to_k_ip.weight"][0, 0] = float("nan")
    elif change == "other base":
        parts = tiny_ip_adapter("base", tiny_backbone_xl())
    elif change == "unknown":
        parts["image_proj"] = {"strange.weight": torch.ones(4)}
    return parts


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("face", "FaceID"),
        ("missing", "lacks 1.to_k_ip.weight"),
        ("nan", "not finite|NaN|nan"),
        ("other base", "made for another base"),
        ("unknown", "does not know"),
    ],
)
def test_ip_adapter_refuses_what_it_cannot_read(
    world: Any, change: str, says: str, tmp_path: Path
) -> None:
    backbone, _, folder = world
    torch.save(broken(change), tmp_path / "adapter.bin")
    with pytest.raises(UserError, match=says):
        IPAdapter.load(
            tmp_path / "adapter.bin", backbone=backbone, image_encoder=folder / "image_encoder"
        )


@pytest.mark.parametrize(("form", "tokens"), [("base", 4), ("plus", 5), ("full", None)])
def test_ip_adapter_file_says_what_it_is(form: str, tokens: int | None, tmp_path: Path) -> None:
    torch.save(tiny_ip_adapter(form, tiny_backbone()), tmp_path / "adapter.bin")
    file = read_ip_adapter(tmp_path / "adapter.bin")
    assert (file.form, file.tokens, file.width) == (form, tokens, 32)
    assert "CLIP" in file.encoder


def test_adapters_refuse_what_is_none(world: Any) -> None:
    backbone, adapter, _ = world
    for wrong in ("a picture", [picture(1)], [ImagePrompt("file.bin", picture(1))]):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="adapters"):
            pictures(backbone, wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="scale"):
        pictures(backbone, [ImagePrompt(adapter, picture(1), 1000.0)])
