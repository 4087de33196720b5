"""Diffusion transformers in one file: the same numbers as from their folder, wherever their text
encoders and VAE come from.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers import flow_bases, flow_files, tiny_flow
from tests.helpers.tiny_flow import relative
from zeroconv.backbones import load_backbone
from zeroconv.backbones.loading.empty import load_empty
from zeroconv.checkpoints.reading import read_weights
from zeroconv.checkpoints.vae import vae_to_original
from zeroconv.cli import convert
from zeroconv.cli.info.report import describe
from zeroconv.errors import UserError
from zeroconv.generation import generate

NAMES = tuple(tiny_flow.WRITERS)
TURBO = pytest.mark.filterwarnings("ignore:.*does not say")


@pytest.fixture(scope="module")
def folders() -> dict[str, Path]:
    return flow_bases.folders()


@pytest.fixture(scope="module")
def bases() -> dict[str, Any]:
    return flow_bases.bases()


@torch.no_grad()
def output(base: Any) -> Tensor:
    z, _, t = tiny_flow.inputs()
    return base.predict(z, t, base.embed_text(["a red ball", "two green cubes"]))


def picture(base: Any) -> Tensor:
    made = generate(base, "a red ball", [], steps=2, height=32, width=32, output="tensor", cfg=1.0)
    return made[0]


def copied(folder: Path, to: Path, *parts: str) -> Path:
    """A folder with these parts alone, and the tokenizers."""
    for part in (*parts, *(p.name for p in folder.glob("tokenizer*"))):
        shutil.copytree(folder / part, to / part)
    return to


@pytest.mark.parametrize("name", NAMES)
def test_flow_file_with_the_parts_of_a_folder_makes_the_folders_pictures(
    folders, bases, tmp_path: Path, name: str
) -> None:
    """The transformer alone, in its authors' layout."""
    state = flow_files.transformer(folders[name], name)
    file = flow_files.write(state, tmp_path / f"{name}.safetensors")
    base: Any = load_backbone(file, parts=folders[name])
    assert base.scheduler_config == bases[name].scheduler_config
    assert torch.equal(output(base), output(bases[name]))
    assert torch.equal(picture(base), picture(bases[name]))


@TURBO
@pytest.mark.parametrize(("name", "vae"), [
    ("sd3", "first_stage_model."), ("qwen", "vae."),
    pytest.param("flux", "vae.", marks=pytest.mark.slow),
    pytest.param("zimage", "vae.", marks=pytest.mark.slow),
])  # fmt: skip
def test_flow_whole_file_needs_tokenizers_alone(
    folders, bases, tmp_path: Path, name: str, vae: str
) -> None:
    """Everything under ComfyUI's prefixes. The configs stand beside it, as tiny models have none of
    the published ones.
    """
    folder = copied(folders[name], tmp_path, "scheduler")
    for part in ("transformer", *flow_files.TEXTS[name], "vae"):
        (folder / part).mkdir()
        shutil.copy(folders[name] / part / "config.json", folder / part)
    state = flow_files.whole(folders[name], name, vae)
    base: Any = load_backbone(flow_files.write(state, tmp_path / "whole.safetensors"))
    assert torch.equal(output(base), output(bases[name]))
    assert torch.equal(picture(base), picture(bases[name]))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLUX.1 schnell whose shapes tell all: heads of 128 channels, a VAE of 32 groups' widths."""
    folder = tmp_path_factory.mktemp("published") / "flux"
    tiny_flow.write_flux(
        folder, num_layers=1, num_single_layers=1, attention_head_dim=128, num_attention_heads=1,
        axes_dims_rope=(16, 56, 56), scale=0.05, dynamic=False,
    )  # fmt: skip
    return folder


@torch.no_grad()
def test_flux_file_beside_comfyuis_files(published: Path, tmp_path: Path) -> None:
    """No config at all: each is read off the shapes."""
    models = copied(published, tmp_path / "models")
    (models / "text_encoders").mkdir()
    (models / "vae").mkdir()
    for part, name in (("text_encoder", "clip_l"), ("text_encoder_2", "t5xxl_fp16")):
        state = read_weights(published / part)
        if name == "clip_l":  # as the published file, which FLUX.1 does not read whole
            state = {f"text_model.{key}": value for key, value in state.items()}
            state["text_projection.weight"] = torch.ones(16, 16)
        flow_files.write(state, models / "text_encoders" / f"{name}.safetensors")
    vae = vae_to_original(read_weights(published / "vae"))
    flow_files.write(vae, models / "vae" / "ae.safetensors")
    state = flow_files.transformer(published, "flux")
    file = flow_files.write(state, tmp_path / "flux1.safetensors")

    ours: Any = load_backbone(file, parts=models)
    theirs: Any = load_backbone(published)
    assert ours.vae.config.scaling_factor == 0.3611 and ours.vae.config.shift_factor == 0.1159
    assert ours.scheduler_config["shift"] == 1.0 and ours.process.shift == 1.0
    for encoder, other in zip(ours.text_encoders, theirs.text_encoders, strict=True):
        assert encoder.state_dict().keys() == other.state_dict().keys()
    # CLIP's heads are one in 64 channels, the tiny one's two: all else is the same
    assert ours.transformer.config.axes_dims_rope == (16, 56, 56)
    text = theirs.embed_text(["a", "red ball"])
    z, _, t = tiny_flow.inputs()
    assert torch.equal(ours.predict(z, t, text), theirs.predict(z, t, text))


def test_flux_file_lacks_are_named_in_one_sentence(published: Path, tmp_path: Path) -> None:
    state = flow_files.transformer(published, "flux")
    file = flow_files.write(state, tmp_path / "flux1.safetensors")
    with pytest.raises(
        UserError, match="lacks the text encoder CLIP-L, the text encoder T5, a VAE"
    ):
        load_backbone(file)
    vae = flow_files.write(
        vae_to_original(read_weights(published / "vae")), tmp_path / "x.safetensors"
    )
    with pytest.raises(UserError, match="lacks the text encoder CLIP-L, the text encoder T5: put"):
        load_backbone(file, vae=vae)
    beside = copied(published, tmp_path, "text_encoder", "text_encoder_2")
    assert torch.isfinite(output(load_backbone(file, vae=vae))).all()
    shutil.rmtree(beside / "tokenizer_2")
    with pytest.raises(UserError, match=r"put tokenizer_2/ beside the file"):
        load_backbone(file, vae=vae)


def test_flow_file_refuses_parts_that_it_does_not_read(folders, tmp_path: Path) -> None:
    state = flow_files.transformer(folders["zimage"], "zimage")
    file = flow_files.write(state, tmp_path / "z.safetensors")
    t5 = flow_files.write(
        read_weights(folders["flux"] / "text_encoder_2"), tmp_path / "t5.safetensors"
    )
    with pytest.raises(UserError, match=r"t5.safetensors is no part of this base"):
        load_backbone(file, parts=[folders["zimage"], t5])
    with pytest.raises(UserError, match="no text encoder or VAE"):
        load_backbone(file, parts=[folders["zimage"], file])
    with pytest.raises(UserError, match="takes no parts from elsewhere"):
        load_backbone(folders["zimage"], parts=t5)
    with pytest.raises(UserError, match="takes no parts from elsewhere"):
        load_backbone("playroom", parts=t5)
    for name in ("t5_a", "t5_b"):
        shutil.copy(t5, tmp_path / f"{name}.safetensors")
    flux = flow_files.write(
        flow_files.transformer(folders["flux"], "flux"), tmp_path / "f.safetensors"
    )
    with pytest.raises(UserError, match=r"several files of T5: t5.safetensors, t5_a.safetensors"):
        load_backbone(flux)


def test_sd3_file_without_t5_says_that_its_states_are_zeros(folders, tmp_path: Path) -> None:
    """The published file with the two CLIPs alone."""
    state = {k: v for k, v in flow_files.whole(folders["sd3"], "sd3").items() if ".t5xxl." not in k}
    copied(folders["sd3"], tmp_path)
    for part in ("transformer", "text_encoder", "text_encoder_2", "vae"):
        (tmp_path / part).mkdir()
        shutil.copy(folders["sd3"] / part / "config.json", tmp_path / part)
    file = flow_files.write(state, tmp_path / "sd3.safetensors")
    with pytest.warns(UserWarning, match="holds no T5, .* its states are zeros"):
        base = load_backbone(file)
    assert not base.embed_text(["a"]).hidden[:, 48:].any()


@pytest.mark.parametrize("name", ["zimage", pytest.param("flux", marks=pytest.mark.slow)])
def test_flow_file_in_float8_is_near_what_it_was(folders, bases, tmp_path: Path, name: str) -> None:
    """With scales, of which three modules may share one, and without."""
    state = flow_files.transformer(folders[name], name)
    scaled = flow_files.in_float8({f"model.diffusion_model.{k}": v for k, v in state.items()})
    plain = {k: v.to(torch.float8_e4m3fn) for k, v in state.items()}
    for kind in (scaled, plain):
        file = flow_files.write(kind, tmp_path / "flow.safetensors")
        made = output(load_backbone(file, parts=folders[name]))
        assert 0 < relative(made, output(bases[name])) < 0.2


@pytest.mark.slow
def test_flow_file_in_diffusers_names_loads_too(folders, bases, tmp_path: Path) -> None:
    for name in ("flux", "sd3"):
        state = read_weights(folders[name] / "transformer")
        file = flow_files.write(state, tmp_path / f"{name}.safetensors")
        base = load_backbone(file, parts=folders[name])
        assert torch.equal(output(base), output(bases[name]))


def test_zimage_file_says_whose_noise_levels_it_gets(folders, tmp_path: Path) -> None:
    state = flow_files.transformer(folders["zimage"], "zimage")
    file = flow_files.write(
        {**state, "norm_final.weight": torch.ones(32)}, tmp_path / "z.safetensors"
    )
    parts = copied(folders["zimage"], tmp_path / "parts", "transformer", "text_encoder", "vae")
    with pytest.warns(UserWarning, match="does not say whether it is Z-Image or Turbo"):
        assert load_backbone(file, parts=parts).process.shift == 3.0


def test_flow_file_is_described_and_not_converted(published: Path, tmp_path: Path) -> None:
    """Scaled float8 is described as it is stored."""
    state = flow_files.in_float8(flow_files.transformer(published, "flux"))
    prefixed = {f"diffusion_model.{key}": value for key, value in state.items()}
    file = flow_files.write(prefixed, tmp_path / "flux1.safetensors")
    told = describe(str(file))
    assert told["kind"] == "flux" and told["stored_as"].startswith("float8_e4m3fn")
    assert told["blocks"] == {"layers": 1, "single_layers": 1}
    assert told["needs"].startswith("CLIP-L, T5, a VAE (or --vae FILE), tokenizers")
    for source in (file, published):
        with pytest.raises(UserError, match="is a diffusion transformer, which is read in each"):
            convert.run(str(source), tmp_path / "out", "diffusers")
        with pytest.raises(UserError, match="whose memory is not calculated"):
            load_empty(source)
