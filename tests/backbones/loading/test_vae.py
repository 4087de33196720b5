"""Another autoencoder in the base's place, and bases of the hub by revision and variant."""

from __future__ import annotations

import fnmatch
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.tiny import tiny_backbone, tiny_backbone_xl_file, tiny_vae
from tests.helpers.tiny_folder import save_backbone, save_single_file
from zeroconv.backbones import load_backbone
from zeroconv.errors import UserError

PREFIX = "first_stage_model."


@pytest.fixture(scope="module")
def other():
    return tiny_vae(seed=9)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A folder, and an SDXL file without an autoencoder."""
    folder = tmp_path_factory.mktemp("bases")
    save_backbone(folder / "sd")
    path = save_single_file(folder / "xl.safetensors", tiny_backbone_xl_file())
    save_file({k: v for k, v in load_file(path).items() if not k.startswith(PREFIX)}, path)
    return folder


def layouts(folder, vae) -> list:
    """The same autoencoder as people have it."""
    from tests.helpers.tiny_folder import single_file_state

    base = tiny_backbone()
    base._vae = vae
    state = single_file_state(base)
    bare = {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}
    save_file(state, folder / "base.safetensors")
    save_file({**bare, "loss.logvar": torch.zeros(1)}, folder / "original.safetensors")
    torch.save({"state_dict": bare}, folder / "original.ckpt")
    save_file(vae.state_dict(), folder / "diffusers.safetensors")
    vae.save_pretrained(folder / "folder")
    vae.save_pretrained(folder / "pipeline" / "vae")
    names = ("base.safetensors", "original.safetensors", "original.ckpt", "diffusers.safetensors")
    return [folder / name for name in (*names, "folder", "pipeline")]


@pytest.mark.parametrize("base", ["sd", "xl.safetensors"])
def test_vae_of_any_layout_replaces_the_bases(bases, other, tmp_path, base) -> None:
    for path in layouts(tmp_path, other):
        loaded = load_backbone(bases / base, vae=path)
        state = loaded.vae.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in other.state_dict().items())
        if path.is_file():  # its weights do not show it: the base's
            scale = 0.13025 if base.startswith("xl") else 0.18215
            assert loaded.vae.config.scaling_factor == scale


def test_vae_of_another_family_is_noted_or_refused(bases, other, tmp_path) -> None:
    other.save_pretrained(tmp_path / "sd")
    with pytest.warns(UserWarning, match=r"scales latents by 0\.18215, the base's own by 0\.13025"):
        load_backbone(bases / "xl.safetensors", vae=tmp_path / "sd")
    wide = tiny_vae(latent_channels=16)
    wide.save_pretrained(tmp_path / "wide")
    save_file(wide.state_dict(), tmp_path / "wide.safetensors")
    for path in ("wide", "wide.safetensors"):
        with pytest.raises(UserError, match="latents of 16 channels, but the base's have 4"):
            load_backbone(bases / "sd", vae=tmp_path / path)


def test_vae_that_is_none_is_one_sentence(bases, tmp_path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text('{"_class_name": "AutoencoderTiny"}')
    save_file({"lora_unet_x.lora_up.weight": torch.zeros(2, 2)}, tmp_path / "lora.safetensors")
    for path, words in (
        (tmp_path / "tiny", "AutoencoderTiny, not an AutoencoderKL"),
        (tmp_path / "lora.safetensors", "is no VAE but a LoRA"),
        (tmp_path / "nothing.safetensors", "there is no VAE"),
        (tmp_path, "holds no VAE"),
    ):
        with pytest.raises(UserError, match=words):
            load_backbone(bases / "sd", vae=path)
    with pytest.raises(UserError, match="holds no autoencoder; give one with --vae FILE"):
        load_backbone(bases / "xl.safetensors")


# ---------------------------------------------------------------- the hub


@pytest.fixture
def hub(bases, tmp_path, monkeypatch):
    """A hub of one repository with two branches; what was asked of it."""
    import huggingface_hub

    asked: list[tuple] = []
    source = tmp_path / "remote"
    shutil.copytree(bases / "sd", source / "main")
    shutil.copytree(bases / "sd", source / "other" / "deep" / "er")
    config = source / "other" / "deep" / "er" / "scheduler" / "scheduler_config.json"
    config.write_text(
        json.dumps({**json.loads(config.read_text()), "prediction_type": "v_prediction"})
    )

    def snapshot_download(name, allow_patterns=None, revision=None, local_files_only=False):
        branch, target = source / (revision or "main"), tmp_path / f"cache-{revision}"
        asked.append((name, revision))
        if local_files_only:
            raise FileNotFoundError(name)
        if not branch.is_dir():
            raise ValueError(f"no revision {revision}")
        for file in branch.rglob("*"):
            label = file.relative_to(branch).as_posix()
            if file.is_file() and any(fnmatch.fnmatch(label, p) for p in allow_patterns):
                (target / label).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target / label)
        return str(target)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return source, asked


def test_hub_revision_and_subfolder(hub) -> None:
    loaded = load_backbone("some/base", revision="other", subfolder="deep/er")
    assert loaded.prediction_type == "v_prediction"
    assert hub[1][-1] == ("some/base", "other")
    assert load_backbone("some/base").prediction_type == "epsilon"
    with pytest.raises(UserError, match=r"at revision .none. cannot be fetched .*no revision none"):
        load_backbone("some/base", revision="none")
    with pytest.raises(UserError, match="has no folder 'deep'"):
        load_backbone("some/base", subfolder="deep")


def test_hub_variant_is_fetched_alone_and_plain_parts_with_it(hub, tmp_path) -> None:
    branch = hub[0] / "main"
    for part, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        state = load_file(branch / part / f"{name}.safetensors")
        half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        save_file(half, branch / part / f"{name}.fp16.safetensors")
    with pytest.warns(UserWarning, match="vae has no weights of the variant 'fp16'"):
        loaded = load_backbone("some/base", variant="fp16")
    fetched = {p.name for p in (tmp_path / "cache-None" / "unet").iterdir()}
    assert fetched == {"config.json", "diffusion_pytorch_model.fp16.safetensors"}
    plain = tiny_backbone().unet.state_dict()
    assert all(torch.equal(v, plain[k].half().float()) for k, v in loaded.unet.state_dict().items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"revision": "main"}, "has no revision 'main'"),
        ({"variant": "fp16"}, "has no weights of the variant 'fp16'"),
        ({"variant": "../x"}, "is no word"),
        ({"variant": ""}, "is no word"),
        ({"subfolder": ".."}, "is not below"),
        ({"subfolder": "/etc"}, "is not below"),
        ({"subfolder": ""}, "is not below"),
        ({"subfolder": "x" * 5000}, "has no folder"),
    ],
)
def test_hub_options_that_make_no_sense_for_a_folder(bases, options, words) -> None:
    with pytest.raises(UserError, match=words):
        load_backbone(bases / "sd", **options)


def test_a_variant_of_one_file_is_refused(bases) -> None:
    with pytest.raises(UserError, match="is one file, so it has no variant"):
        load_backbone(bases / "xl.safetensors", variant="fp16")
