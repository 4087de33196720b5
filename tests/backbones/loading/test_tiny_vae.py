"""Small decoders beside a base's VAE: every layout they are published in, and what is none."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file

from tests.helpers.tiny import tiny_backbone, tiny_unet, tiny_vae
from tests.helpers.tiny_folder import save_backbone
from zeroconv.backbones import load_backbone
from zeroconv.backbones.loading import tiny_vae as loading
from zeroconv.backbones.loading.tiny_vae import build_tiny_vae, embedded_tiny_vae
from zeroconv.checkpoints.identify import identify
from zeroconv.errors import UserError
from zeroconv.generation import generate
from zeroconv.scratch.embedded import embedded_vae


def autoencoder(channels: int = 4, levels: int = 2, width: int = 8) -> AutoencoderTiny:
    blocks = (3, 1, 2, 1)[:levels]
    return AutoencoderTiny(
        encoder_block_out_channels=(width,) * levels,
        decoder_block_out_channels=(width,) * levels,
        num_encoder_blocks=(1,) * levels,
        num_decoder_blocks=blocks,
        latent_channels=channels,
    )


def layouts(folder: Path, vae: AutoencoderTiny) -> list[Path]:
    """The same decoder as diffusers' folder, its file, the original's files, and ComfyUI's."""
    folder.mkdir(parents=True, exist_ok=True)
    vae.save_pretrained(folder / "folder")
    state = {k: v.contiguous() for k, v in vae.state_dict().items()}
    save_file(state, folder / "all.safetensors")
    decoder = {k: v for k, v in state.items() if k.startswith("decoder.")}
    save_file(decoder, folder / "alone.safetensors")
    original = {}
    for key, value in decoder.items():
        number, _, rest = key.removeprefix("decoder.layers.").partition(".")
        original[f"{int(number) + 1}.{rest}"] = value
    save_file(original, folder / "taesd_decoder.safetensors")
    torch.save(original, folder / "taesd_decoder.pth")
    encoder = {
        k.removeprefix("encoder.layers."): v for k, v in state.items() if k.startswith("encoder.")
    }
    both = {f"taesd_decoder.{k}": v for k, v in original.items()}
    both |= {f"taesd_encoder.{k}": v for k, v in encoder.items()}
    save_file(both, folder / "comfyui.safetensors")
    names = ("folder", "all.safetensors", "alone.safetensors", "taesd_decoder.safetensors",
             "taesd_decoder.pth", "comfyui.safetensors")  # fmt: skip
    return [folder / name for name in names]


@pytest.fixture(scope="module")
def base():
    """A base of two levels: its VAE has two pixels a latent."""
    return tiny_backbone()


@pytest.fixture(scope="module")
def levels(base) -> int:
    return len(base.vae.config.block_out_channels)


@pytest.fixture(scope="module")
def small(levels) -> AutoencoderTiny:
    torch.manual_seed(3)
    return autoencoder(levels=levels).eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory, small, base) -> list[Path]:
    folder = tmp_path_factory.mktemp("tiny")
    save_backbone(folder / "base", base)
    return layouts(folder, small)


def test_tiny_vae_of_every_layout_decodes_the_same(files, small, base) -> None:
    z = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        expected = (small.decode(z).sample / 2 + 0.5).clamp(0, 1)
    for path in files:
        assert identify(path).name == "tiny_vae", path
        tiny = build_tiny_vae(path)
        base.tiny_vae = tiny
        assert torch.allclose(base.decode_tiny(z), expected, atol=1e-5), path
        assert not list(tiny.encoder.parameters())
    base.tiny_vae = None


def test_tiny_vae_decodes_the_result_and_nothing_else(files, base) -> None:
    options = {"steps": 1, "height": 64, "width": 64, "output": "tensor"}
    with pytest.warns(UserWarning, match="belongs to another family"):  # its weights are random
        loaded = load_backbone(files[0].parent / "base", tiny_vae=files[3])
    latents = []
    made = generate(loaded, "a", fast="vae=tiny", callback=lambda i, n, z: latents.append(z),
                    **options)  # fmt: skip
    assert torch.allclose(made[0], loaded.decode_tiny(latents[-1])[0], atol=1e-6)
    exact = generate(loaded, "a", **options)
    assert torch.allclose(exact[0], loaded.decode_latents(latents[-1])[0], atol=1e-6)
    assert not torch.allclose(exact[0], made[0], atol=0.01)


def test_tiny_vae_that_is_nowhere_is_noted_and_the_bases_own_decodes(base) -> None:
    options = {"steps": 1, "height": 64, "width": 64, "output": "tensor"}
    with pytest.warns(UserWarning, match="vae=tiny is left out: .* give one with --tiny-vae PATH"):
        made = generate(base, "a", fast="vae=tiny", **options)
    assert torch.equal(made[0], generate(base, "a", **options)[0])
    with pytest.raises(UserError, match="has no tiny VAE"):
        base.decode_tiny(torch.zeros(1, 4, 8, 8))


def test_tiny_vae_of_another_shape_is_refused(tmp_path, files, levels) -> None:
    base = files[0].parent / "base"
    autoencoder(16, levels).save_pretrained(tmp_path / "wide")
    autoencoder(4, levels - 1).save_pretrained(tmp_path / "deep")
    for name, words in (("wide", "of latents of 16, but"), ("deep", "pixels of a latent, but")):
        with pytest.raises(UserError, match=words):
            load_backbone(base, tiny_vae=tmp_path / name)


def test_tiny_vae_that_is_none_is_one_sentence(tmp_path, small) -> None:
    state = {k: v.contiguous() for k, v in small.state_dict().items()}
    encoder = {k: v for k, v in state.items() if k.startswith("encoder.")}
    decoder = {k: v for k, v in state.items() if k.startswith("decoder.")}
    bare = {k.removeprefix("encoder.layers."): v for k, v in encoder.items()}
    first = next(iter(decoder))
    written = {
        "encoder": (encoder, "is the encoder of a tiny VAE"),
        "bare": (bare, "is the encoder of a tiny VAE"),
        "vae": (tiny_vae().state_dict(), "is no tiny VAE but a VAE"),
        "unet": (tiny_unet().state_dict(), "is no tiny VAE but a UNet"),
        "other": ({"weight": torch.zeros(2)}, "is no tiny VAE"),
        "cut": ({k: v for k, v in decoder.items() if k != "decoder.layers.2.conv.2.bias"}, "lacks"),
        "broken": ({**decoder, first: torch.full_like(decoder[first], float("nan"))}, "no numbers"),
        "flat": ({**decoder, first: torch.zeros(3)}, "no convolution"),
    }
    for name, (tensors, words) in written.items():
        save_file(dict(tensors), tmp_path / f"{name}.safetensors")
        with pytest.raises(UserError, match=words):
            build_tiny_vae(tmp_path / f"{name}.safetensors")
    small.save_pretrained(tmp_path / "folder")
    config = tmp_path / "folder" / "config.json"
    plain = json.loads(config.read_text())
    for change, words in (
        ({"_class_name": "AutoencoderKL"}, "holds another model .AutoencoderKL."),
        ({"num_decoder_blocks": [10**9, 1]}, "num_decoder_blocks"),
        ({"decoder_block_out_channels": [8] * 99}, "at most 12 levels"),
        ({"num_decoder_blocks": [1]}, "describes no module"),
        ({"latent_channels": "four"}, "latent_channels"),
        ({"act_fn": "no such"}, "describes no module"),
    ):
        config.write_text(json.dumps({**plain, **change}))
        with pytest.raises(UserError, match=words):
            build_tiny_vae(tmp_path / "folder")


def test_vae_that_is_a_tiny_one_is_told_so(files) -> None:
    with pytest.raises(UserError, match="is no VAE but a tiny VAE"):
        load_backbone(files[0].parent / "base", vae=files[3])


def test_embedded_tiny_vae_is_for_the_embedded_vae_alone(base, monkeypatch, tmp_path) -> None:
    small = autoencoder(8, 4)
    small.save_pretrained(tmp_path / "small")
    monkeypatch.setattr(loading, "EMBEDDED", str(tmp_path / "small"))
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        vae = torch.nn.Module.to(embedded_vae(), dtype)
        playroom = SimpleNamespace(_vae=vae)
        assert embedded_tiny_vae(playroom).dtype == dtype
    assert embedded_tiny_vae(base) is None  # of another shape
    vae.register_to_config(shift_factor=0.1)  # its latents are others
    assert embedded_tiny_vae(playroom) is None
    vae.register_to_config(shift_factor=None)
    vae.decoder.conv_out.weight.data.add_(0.1)
    assert embedded_tiny_vae(playroom) is None
    assert embedded_tiny_vae(SimpleNamespace(_vae=None)) is None
    monkeypatch.setattr(loading, "EMBEDDED", "no such folder")
    assert embedded_tiny_vae(SimpleNamespace(_vae=embedded_vae())) is None
