"""`zeroconv info` of bases in one file, LoRAs and VAEs, and `generate` with another VAE."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.tiny import tiny_backbone_xl_file
from tests.helpers.tiny_folder import save_single_file
from zeroconv.cli.info.files import describe_base_file
from zeroconv.cli.info.report import describe
from zeroconv.errors import UserError


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("xl")
    return save_single_file(folder / "xl.safetensors", tiny_backbone_xl_file(in_channels=9))


def test_info_of_sdxl_in_one_file(xl, tmp_path, zeroconv) -> None:
    report = json.loads(zeroconv("info", xl, "--json").stdout)
    assert (report["kind"], report["family"], report["prediction"]) == ("base", "SDXL", "epsilon")
    assert report["parameters"].keys() == {"unet", "vae", "text", "text 2"}
    assert report["picture_size"] == 1024
    assert len(report["connections"]) == 10
    assert "inpainting" in report["needs"] and "tokenizer" not in report["needs"]

    half = {k: v.half() for k, v in load_file(xl).items() if not k.startswith("first_stage_model.")}
    save_file(
        {**half, "v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, tmp_path / "a.safetensors"
    )
    other = describe_base_file(tmp_path / "a.safetensors")
    assert other["stored_as"] == "float16"
    assert (other["prediction"], other["zero_snr"]) == ("v_prediction", True)
    assert "--vae FILE" in other["needs"] and "tokenizer" in other["needs"]


def test_info_of_the_refiner_is_one_sentence(tmp_path) -> None:
    names = ["model.diffusion_model.out.0.weight", "conditioner.embedders.0.model.ln_final.bias"]
    save_file({name: torch.zeros(2) for name in names}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="is the refiner of SDXL"):
        describe(str(tmp_path / "x.safetensors"))


def test_info_of_loras_and_vaes(xl, tmp_path, zeroconv) -> None:
    key = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    state = {
        f"{key}.lora_up.weight": torch.zeros(8, 2),
        f"{key}.lora_down.weight": torch.zeros(2, 2048),
        f"{key}.dora_scale": torch.ones(8, 1),
        "lora_unet_x.lokr_w1": torch.zeros(2, 2),
        "lora_unet_x.lokr_w2": torch.zeros(2, 2),
    }
    save_file(state, tmp_path / "style.safetensors")
    report = json.loads(zeroconv("info", tmp_path / "style.safetensors", "--json").stdout)
    assert (report["kind"], report["family"]) == ("lora", "SDXL")
    assert report["changes"].keys() == {"DoRA (LoRA)", "LoKr"}
    assert "--lora FILE" in zeroconv("info", tmp_path / "style.safetensors").stdout

    prefix = "first_stage_model."
    vae = {k.removeprefix(prefix): v for k, v in load_file(xl).items() if k.startswith(prefix)}
    save_file(vae, tmp_path / "vae.safetensors")
    report = json.loads(zeroconv("info", tmp_path / "vae.safetensors", "--json").stdout)
    assert report["kind"] == "vae"
    assert report["latent"] == {"channels": 4, "pixels": 8}


def test_generate_takes_another_vae_and_tells_it(models, tmp_path, zeroconv) -> None:
    from tests.helpers.tiny import tiny_vae
    from zeroconv.generation.metadata.record import read_info

    tiny_vae(seed=9).save_pretrained(tmp_path / "vae")
    words = ("generate", "a", "--base", models / "base", "--steps", 1, "--seed", 1, "--out")
    pictures = [tmp_path / "own.png", tmp_path / "other.png"]
    assert zeroconv(*words, pictures[0]).exit_code == 0
    assert zeroconv(*words, pictures[1], "--vae", tmp_path / "vae").exit_code == 0
    assert read_info(pictures[1])["vae"] == str(tmp_path / "vae")
    assert "vae" not in read_info(pictures[0])
    assert pictures[0].read_bytes() != pictures[1].read_bytes()


def test_convert_of_a_base_from_the_command_line(tmp_path, zeroconv) -> None:
    from tests.helpers.tiny import tiny_backbone

    path = save_single_file(tmp_path / "sd.safetensors", tiny_backbone())
    assert zeroconv("convert", path, tmp_path / "folder").exit_code == 0
    assert (tmp_path / "folder" / "model_index.json").is_file()
    back = tmp_path / "back.safetensors"
    assert zeroconv("convert", tmp_path / "folder", back, "--to", "original").exit_code == 0
    assert load_file(back).keys() == load_file(path).keys()
