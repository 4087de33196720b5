from __future__ import annotations

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.tiny import inputs, tiny_backbone, tiny_backbone_xl, tiny_text
from tests.helpers.tiny_folder import save_backbone, save_single_file
from zeroconv.backbones import UNetBackbone, load_backbone
from zeroconv.backbones.loading.building import channels_last_
from zeroconv.backbones.loading.locate import locate
from zeroconv.errors import UserError


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "sd"
    return folder, save_backbone(folder)


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(saved[0], tmp_path / "sd")


def assert_same(ours, theirs):
    # as what is loaded: the layout decides the last bits, not the weights
    for module in (theirs.unet, theirs.vae):
        channels_last_(module)
    z, hint, t, text = inputs(theirs)
    again = ours.embed_text(["picture 0", "picture 1"])
    assert torch.equal(again.hidden, text.hidden)
    assert torch.equal(
        ours.decode(ours.encode(z, t, again), t, again),
        theirs.decode(theirs.encode(z, t, text), t, text),
    )
    assert torch.equal(ours.encode_image(hint), theirs.encode_image(hint))
    assert torch.equal(ours.decode_latents(z), theirs.decode_latents(z))


# ---------------------------------------------------------------- folders


def test_a_diffusers_folder(saved):
    folder, backbone = saved
    loaded = load_backbone(folder)
    assert_same(loaded, backbone)
    assert loaded.name == str(folder)
    assert loaded.dtype == torch.float32
    assert loaded.default_size == backbone.default_size
    assert not any(p.requires_grad for p in loaded.unet.parameters())


def test_v_prediction_comes_from_the_folder_or_from_the_call(saved, tmp_path):
    backbone = tiny_backbone("v_prediction")
    save_backbone(tmp_path / "v", backbone)
    assert load_backbone(tmp_path / "v").prediction_type == "v_prediction"
    assert load_backbone(saved[0], prediction_type="v_prediction").prediction_type == "v_prediction"


def test_an_sdxl_folder(tmp_path):
    backbone = tiny_backbone_xl()
    save_backbone(tmp_path / "xl", backbone)
    loaded = load_backbone(tmp_path / "xl")
    assert_same(loaded, backbone)
    assert torch.equal(loaded.embed_text(["a"]).pooled, backbone.embed_text(["a"]).pooled)


def test_weights_in_half_precision_are_read_as_asked(folder):
    for path in (folder / "unet").glob("*.safetensors"):
        state = {key: value.half() for key, value in load_file(path).items()}
        path.unlink()
        save_file(state, folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    assert load_backbone(folder).dtype == torch.float32
    assert load_backbone(folder, dtype=torch.bfloat16).unet.conv_in.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("prefix", ["text_model.", ""])
def test_text_encoders_of_any_transformers_version(saved, folder, prefix):
    """Version 5 dropped a prefix that every folder on the hub has; older ones also hold a position
    counter.
    """
    path = folder / "text_encoder" / "model.safetensors"
    state = {
        prefix + key.removeprefix("text_model."): value for key, value in load_file(path).items()
    }
    state[f"{prefix}embeddings.position_ids"] = torch.arange(16)[None]
    save_file(state, path)
    assert_same(load_backbone(folder), saved[1])


def test_autoencoders_of_older_diffusers(saved, folder):
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(path)
    for new, name in old.items():
        state = {key.replace(new, name): value for key, value in state.items()}
    assert any("proj_attn" in key for key in state)
    save_file(state, path)
    assert_same(load_backbone(folder), saved[1])


def test_pickled_weights_of_tensors_only_are_read(saved, folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), folder / "unet" / "diffusion_pytorch_model.bin")
    path.unlink()
    assert_same(load_backbone(folder), saved[1])


def test_shards_are_joined(saved, folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    path.unlink()
    keys, names = sorted(state), ["a.safetensors", "b.safetensors"]
    for i, name in enumerate(names):
        save_file({key: state[key] for key in keys[i::2]}, folder / "unet" / name)
    index = {"weight_map": {key: names[i % 2] for i, key in enumerate(keys)}}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps(index)
    )
    assert_same(load_backbone(folder), saved[1])


# ---------------------------------------------------------------- one file


@pytest.mark.parametrize("open_clip", [False, True])
def test_one_file_in_the_original_layout(tmp_path, open_clip):
    backbone = tiny_backbone()
    if open_clip:
        text, tokenizer = tiny_text(hidden_act="gelu")
        backbone = UNetBackbone(
            backbone.unet, backbone.vae, [text], [tokenizer], backbone.scheduler_config, "gelu"
        )
    path = save_single_file(tmp_path / "sd.safetensors", backbone, open_clip)
    assert_same(load_backbone(path), backbone)


def test_what_one_file_of_sd2_predicts(tmp_path):
    backbone = tiny_backbone()
    for name, expected in [
        ("v2-1_768-ema.safetensors", "v_prediction"),
        ("v2-1_512-base.safetensors", "epsilon"),
    ]:
        assert (
            load_backbone(save_single_file(tmp_path / name, backbone, True)).prediction_type
            == expected
        )
    path = tmp_path / "v2-1_768-ema.safetensors"
    assert load_backbone(path, prediction_type="epsilon").prediction_type == "epsilon"
    path.with_suffix(".yaml").write_text("model:\n  params:\n    linear_start: 0.00085\n")
    assert load_backbone(path).prediction_type == "epsilon"
    path.with_suffix(".yaml").write_text('model:\n  params:\n    parameterization: "v"\n')
    assert load_backbone(path).prediction_type == "v_prediction"


@pytest.mark.parametrize("names", [{"v_pred"}, {"v_pred", "ztsnr"}, set()])
def test_one_file_marked_as_predicting_v(tmp_path, names):
    """Trainers of v models mark them by empty tensors."""
    path = save_single_file(tmp_path / "sd.safetensors", tiny_backbone())
    save_file({**load_file(path), **{name: torch.zeros(0) for name in names}}, path)
    loaded = load_backbone(path)
    assert loaded.prediction_type == ("v_prediction" if names else "epsilon")
    assert bool(loaded.scheduler_config.get("rescale_betas_zero_snr")) == ("ztsnr" in names)
    assert loaded.default_size == load_backbone(path, prediction_type="epsilon").default_size
    assert load_backbone(path, prediction_type="epsilon").prediction_type == "epsilon"


def test_one_file_without_a_tokenizer_says_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setattr("zeroconv.backbones.loading.locate._download", refuse)
    path = save_single_file(tmp_path / "sd.safetensors", tiny_backbone(), tokenizer=False)
    with pytest.raises(
        UserError,
        match=r"openai/clip-vit-large-patch14 .* put its tokenizer files into .*tokenizer",
    ):
        load_backbone(path)


def refuse(name, kind, patterns):
    raise UserError(f"there is no {kind} {name}")


# ---------------------------------------------------------------- mistakes: one sentence each


def sentence(path) -> str:
    with pytest.raises(UserError) as caught:
        load_backbone(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_nothing_there(tmp_path, monkeypatch):
    monkeypatch.setattr("zeroconv.backbones.loading.locate.ASSETS", tmp_path / "assets")
    assert "embedded backbone 'playroom' is not in this installation" in sentence("playroom")
    assert "there is no backbone" in sentence(tmp_path / "nothing")
    assert "there is no backbone" in sentence("nothing.safetensors")
    assert "no backbone was named" in sentence("")


def test_a_hub_id_without_a_network(monkeypatch):
    import huggingface_hub

    def offline(*args, **kwargs):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    assert "cannot be fetched from the hub (Name or service not known)" in sentence(
        "nobody/nothing"
    )


def test_a_folder_that_is_no_model(tmp_path):
    assert "is no model folder" in sentence(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "ControlNetModel"}')
    assert "holds a ControlNetModel, not a whole model" in sentence(tmp_path)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_folder_that_lacks_a_part(folder, part):
    shutil.rmtree(folder / part)
    assert f"lacks {part}/" in sentence(folder)


def test_a_part_without_weights_or_config(folder):
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert "unet holds no weights" in sentence(folder)
    (folder / "unet" / "config.json").write_text("{broken")
    assert "config.json is damaged" in sentence(folder)
    (folder / "unet" / "config.json").unlink()
    assert "has no config.json" in sentence(folder)


def test_a_config_that_describes_nothing(folder):
    path = folder / "unet" / "config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "down_block_types": ["Nonsense"] * 4})
    )
    assert "its config describes no module" in sentence(folder)


def test_a_tensor_of_another_shape(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state["conv_in.weight"] = torch.zeros(16, 9, 3, 3)
    save_file(state, path)
    assert "tensor conv_in.weight has shape [16, 9, 3, 3], expected [16, 4, 3, 3]" in sentence(
        folder
    )


def test_missing_and_unknown_tensors(folder):
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state["surplus"] = state.pop("encoder.conv_in.weight")
    save_file(state, path)
    assert "lacks encoder.conv_in.weight and has the unknown surplus" in sentence(folder)


def test_a_truncated_file(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert "is damaged or no safetensors file" in sentence(folder)


class Code:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_a_pickle_with_code_in_it(folder, tmp_path, capsys):
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({"conv_in.weight": Code()}, folder / "unet" / "diffusion_pytorch_model.bin")
    assert "holds more than tensors" in sentence(folder)
    (tmp_path / "old.ckpt").write_bytes(pickle.dumps(Code()))
    assert "refused" in sentence(tmp_path / "old.ckpt")
    assert "this must never run" not in capsys.readouterr().out


def test_a_broken_tokenizer(folder):
    for path in (folder / "tokenizer").iterdir():
        path.write_text("{")
    assert "tokenizer" in sentence(folder)
    assert "cannot be read" in sentence(folder)


def test_one_file_that_is_something_else(tmp_path):
    path = tmp_path / "x.safetensors"
    unet = {"model.diffusion_model.out.0.weight": torch.zeros(1)}
    save_file(unet, path)
    assert "is no base but the UNet of a Stable Diffusion alone" in sentence(path)
    for more, missing in (
        ({"first_stage_model.encoder.x": torch.zeros(1)}, "holds no text encoder;"),
        ({"cond_stage_model.transformer.x": torch.zeros(1)}, "holds no autoencoder; give one"),
        ({"conditioner.embedders.0.transformer.x": torch.zeros(1)}, "no second text encoder"),
        ({"conditioner.embedders.0.model.x": torch.zeros(1)}, "is no base but the refiner of SDXL"),
        ({"cond_stage_model.x": torch.zeros(1), "edm_mean": torch.zeros(4)}, "EDM's noise"),
    ):
        save_file({**unet, **more}, path)
        assert missing in sentence(path)
    save_file({"control_model.x": torch.zeros(1)}, path)
    assert "is no base but a ControlNet (give it as the control)" in sentence(path)
    (tmp_path / "picture.png").write_bytes(b"png")
    assert "is no model" in sentence(tmp_path / "picture.png")


def test_load_backbone_reads_whether_empty_negatives_are_zeros(tmp_path) -> None:
    from zeroconv.backbones.loading.folder import _zeroes_empty_negative

    xl = {"_class_name": "StableDiffusionXLPipeline"}
    assert not _zeroes_empty_negative(tmp_path)
    for index, expected in (
        (xl, True),
        ({**xl, "force_zeros_for_empty_prompt": False}, False),
        ({"_class_name": "StableDiffusionPipeline"}, False),
    ):
        (tmp_path / "model_index.json").write_text(json.dumps(index))
        assert _zeroes_empty_negative(tmp_path) is expected


@pytest.mark.parametrize(
    ("name", "meant"),
    [("cany", "canny"), ("playroom-cany", "playroom-canny"), ("Depht", "depth"), ("quux", None)],
)
def test_near_names_of_embedded_models_are_named(name: str, meant: str | None) -> None:
    with pytest.raises(UserError) as caught:
        locate(name, "ControlNet")
    hint = f"did you mean '{meant}'?"
    assert (hint in str(caught.value)) if meant else ("did you mean" not in str(caught.value))
