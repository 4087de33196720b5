"""SDXL, inpainting and editing bases from one file: the same outputs as the models written."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.tiny import inputs, tiny_backbone, tiny_backbone_xl_file, tiny_unet
from tests.helpers.tiny_folder import save_single_file, single_file_state
from zeroconv.backbones import load_backbone
from zeroconv.backbones.loading.building import channels_last_
from zeroconv.backbones.loading.tokenizer import OPEN_CLIP_PAD
from zeroconv.control import ControlNet
from zeroconv.errors import UserError


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone_xl_file()


@pytest.fixture(scope="module")
def file(backbone, tmp_path_factory):
    return save_single_file(tmp_path_factory.mktemp("xl") / "sdxl.safetensors", backbone)


def outputs(backbone) -> list[torch.Tensor]:
    """Text states, a prediction, and a decoded picture."""
    z, _, t, _ = inputs(backbone)
    text = backbone.embed_text(["a cube", "the ball"], (64, 64))
    with torch.no_grad():
        made = backbone.decode(backbone.encode(z, t, text), t, text)
    return [text.hidden, text.pooled, made, backbone.decode_latents(z)]


def assert_near(ours, theirs, atol: float = 1e-5) -> None:
    for a, b in zip(outputs(ours), outputs(theirs), strict=True):
        torch.testing.assert_close(a.float(), b.float(), rtol=0, atol=atol)


def test_sdxl_from_one_file_gives_the_same_outputs(backbone, file) -> None:
    loaded = load_backbone(file)
    assert_near(loaded, backbone)
    assert loaded.scheduler_config == backbone.scheduler_config
    assert loaded.vae.config.scaling_factor == 0.13025 and loaded.vae.config.force_upcast
    assert loaded.unet.config.sample_size == 128
    assert loaded.tokenizers[1].pad_token == OPEN_CLIP_PAD
    assert loaded.tokenizers[1].pad_token_id == 0


def test_sdxl_second_tokenizer_beside_the_file_wins(backbone, file, tmp_path) -> None:
    path = save_single_file(tmp_path / "sdxl.safetensors", backbone)
    backbone.tokenizers[0].save_pretrained(tmp_path / "tokenizer_2")
    assert load_backbone(path).tokenizers[1].pad_token != OPEN_CLIP_PAD


def test_sdxl_file_without_a_tokenizer_says_where_to_put_it(backbone, tmp_path) -> None:
    path = save_single_file(tmp_path / "sdxl.safetensors", backbone, tokenizer=False)
    with pytest.raises(UserError, match=r"put its tokenizer files into .*tokenizer\."):
        load_backbone(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sdxl_in_half_precision(backbone, file, tmp_path, dtype) -> None:
    state = load_file(file)
    half = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    path = save_single_file(tmp_path / "half.safetensors", backbone)
    save_file(half, path)
    loaded = load_backbone(path)
    assert loaded.dtype == torch.float32
    assert_near(loaded, backbone, 0.1)
    stored = load_backbone(path, dtype=torch.float16)
    assert stored.unet.dtype == torch.float16
    assert stored.vae.dtype == torch.float32  # it overflows in float16


@pytest.mark.parametrize("names", [("v_pred",), ("v_pred", "ztsnr"), ()])
def test_sdxl_marked_as_predicting_v(backbone, file, tmp_path, names) -> None:
    path = save_single_file(tmp_path / "noob.safetensors", backbone)
    save_file({**load_file(path), **{name: torch.zeros(0) for name in names}}, path)
    loaded = load_backbone(path)
    assert loaded.prediction_type == ("v_prediction" if names else "epsilon")
    assert bool(loaded.scheduler_config.get("rescale_betas_zero_snr")) == ("ztsnr" in names)
    assert load_backbone(path, prediction_type="epsilon").prediction_type == "epsilon"


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda path: path.with_suffix(".yaml").write_text("parameterization: v\n"), "v"),
        (lambda path: path.with_suffix(".yaml").write_text("target: sgm.x.VScaling\n"), "v"),
        (lambda path: path.with_suffix(".yaml").write_text("target: EpsScaling\n"), "eps"),
        (
            lambda path: save_file(
                load_file(path), path, metadata={"modelspec.prediction_type": "v"}
            ),
            "v",
        ),
    ],
)
def test_what_one_file_predicts_stands_beside_it_or_in_its_header(
    tmp_path, write, expected
) -> None:
    path = save_single_file(tmp_path / "sd.safetensors", tiny_backbone())
    write(path)
    assert load_backbone(path).prediction_type.startswith(expected)


@pytest.mark.parametrize("channels", [8, 9])
def test_a_base_that_reads_pictures_loads_and_says_what_it_needs(tmp_path, channels) -> None:
    for name, base in (
        ("sd", tiny_backbone(unet=tiny_unet(in_channels=channels))),
        ("xl", tiny_backbone_xl_file(in_channels=channels)),
    ):
        loaded = load_backbone(save_single_file(tmp_path / name / "sd.safetensors", base))
        assert loaded.latent_channels == 4
        assert loaded.unet.config.in_channels == channels
        z, _, t, text = inputs(loaded)
        more = torch.randn(len(z), channels - 4, *z.shape[2:])
        channels_last_(base.unet)  # as loaded ones are: the same order of sums
        with torch.no_grad():
            both = [b.encode(torch.cat([z, more], 1), t, text) for b in (loaded, base)]
        for a, b in zip(*both, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        with pytest.raises(UserError, match=f"reads {channels} channels: the latent"):
            loaded.encode(z, t, text)
        with pytest.raises(UserError, match=f"reads {channels} channels, but a new ControlNet"):
            ControlNet.from_backbone(loaded)


@pytest.mark.parametrize("channels", [5, 7])
def test_a_base_for_depth_or_enlarging_is_refused(tmp_path, channels) -> None:
    base = single_file_state(tiny_backbone())
    key = "model.diffusion_model.input_blocks.0.0.weight"
    path = save_single_file(tmp_path / "sd.safetensors", tiny_backbone())
    save_file({**base, key: torch.zeros(16, channels, 3, 3)}, path)
    with pytest.raises(UserError, match=f"reads latents of {channels} channels"):
        load_backbone(path)
