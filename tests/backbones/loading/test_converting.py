"""A base from one layout into the other: the same tensors, and diffusers reads what is written."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.tiny import tiny_backbone, tiny_backbone_xl, tiny_backbone_xl_file, tiny_unet
from tests.helpers.tiny_folder import save_backbone, save_single_file
from zeroconv.backbones import load_backbone
from zeroconv.backbones.loading.converting import REST, convert_base
from zeroconv.errors import UserError

MAKES = {"sd": tiny_backbone, "xl": tiny_backbone_xl_file}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a
    )


@pytest.mark.parametrize("name", MAKES)
def test_convert_base_of_one_file_there_and_back_is_exact(tmp_path, name) -> None:
    path = save_single_file(tmp_path / "sd.safetensors", MAKES[name]())
    state = {
        **load_file(path),
        "v_pred": torch.zeros(0),
        "denoiser.sigmas": torch.arange(4.0),
    }
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save_file(half, path)
    folder = convert_base(path, tmp_path / "folder", "diffusers")
    assert (folder / REST).is_file()
    back = convert_base(folder, tmp_path / "back.safetensors", "original")
    assert same(load_file(back), half)

    file, both = load_backbone(path), (load_backbone(folder), load_backbone(back))
    for other in both:
        assert other.prediction_type == file.prediction_type == "v_prediction"
        assert other.scheduler_config == file.scheduler_config
        assert same(other.unet.state_dict(), file.unet.state_dict())
        assert dict(other.vae.config)["scaling_factor"] == file.vae.config.scaling_factor


def test_convert_base_of_a_folder_keeps_what_shapes_do_not_show(tmp_path) -> None:
    """Heads, groups and the schedule stand in the file's header."""
    odd = tiny_backbone("v_prediction", unet=tiny_unet(attention_head_dim=2, norm_num_groups=4))
    for name, backbone in (("sd", odd), ("xl", tiny_backbone_xl())):
        folder = tmp_path / name
        save_backbone(folder, backbone)
        with pytest.warns(UserWarning, match="holds no tokenizer"):
            file = convert_base(folder, tmp_path / f"{name}.safetensors", "original")
        backbone.tokenizers[0].save_pretrained(tmp_path / "tokenizer")
        loaded, expected = load_backbone(file), load_backbone(folder)
        assert (
            dict(loaded.unet.config).items()
            >= {
                key: value for key, value in expected.unet.config.items() if not key.startswith("_")
            }.items()
        )
        assert loaded.prediction_type == expected.prediction_type
        assert ("v_pred" in load_file(file)) == (name == "sd")
        for ours, theirs in zip(loaded.text_encoders, expected.text_encoders, strict=True):
            assert same(ours.state_dict(), theirs.state_dict())
        for part in ("tokenizer", f"{name}.safetensors"):
            target = tmp_path / part
            if target.is_dir():
                for inner in target.iterdir():
                    inner.unlink()
                target.rmdir()


def test_convert_base_of_sdxl_is_a_pipeline_of_diffusers(tmp_path) -> None:
    from diffusers import StableDiffusionXLPipeline

    path = save_single_file(tmp_path / "sd.safetensors", tiny_backbone_xl_file())
    folder = convert_base(path, tmp_path / "folder", "diffusers")
    pipe = StableDiffusionXLPipeline.from_pretrained(folder)
    loaded = load_backbone(path)
    assert same(pipe.unet.state_dict(), loaded.unet.state_dict())
    assert same(pipe.vae.state_dict(), loaded.vae.state_dict())
    assert same(pipe.text_encoder_2.state_dict(), loaded.text_encoders[1].state_dict())
    assert pipe.tokenizer_2.pad_token == "!"
    assert pipe.config.force_zeros_for_empty_prompt


def test_convert_base_refuses_what_has_no_other_layout(tmp_path) -> None:
    save_backbone(tmp_path / "base")
    with pytest.raises(UserError, match="in diffusers' layout already"):
        convert_base(tmp_path / "base", tmp_path / "out", "diffusers")
    (tmp_path / "base" / "lora.json").write_text('{"base": "playroom"}')
    with pytest.raises(UserError, match="LoRA that names its base"):
        convert_base(tmp_path / "base", tmp_path / "x.safetensors", "original")


def test_convert_base_writes_scaled_float8_in_float16(tmp_path) -> None:
    path = save_single_file(tmp_path / "sd.safetensors", tiny_backbone())
    state = load_file(path)
    module = "model.diffusion_model.time_embed.0"
    state[f"{module}.weight"] = state[f"{module}.weight"].to(torch.float8_e4m3fn)
    state[f"{module}.scale_weight"] = torch.tensor(0.5)
    save_file({**state, "model_ema.decay": torch.zeros(1)}, path)
    with pytest.warns(UserWarning, match="float8|averaged") as notes:
        folder = convert_base(path, tmp_path / "folder", "diffusers")
    messages = " ".join(str(note.message) for note in notes)
    assert "scaled float8 weights" in messages and "1 tensors of averaged weights" in messages
    written = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    weight = written["time_embedding.linear_1.weight"]
    assert weight.dtype == torch.float16
    assert torch.equal(weight, (state[f"{module}.weight"].float() * 0.5).half())
