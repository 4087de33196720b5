"""Layouts of diffusion transformers in one file: names both ways, and configs from shapes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders import single_file_utils
from torch import Tensor

from tests.helpers import flow_bases, tiny_flow
from tests.helpers.flow_files import KINDS, TEXTS
from zeroconv.checkpoints.flow import infer, text_files
from zeroconv.checkpoints.flow.file import CLASSES, from_diffusers, split, to_diffusers
from zeroconv.checkpoints.flow.video_vae import of_video_vae
from zeroconv.checkpoints.identify import identify
from zeroconv.errors import UserError

# what the published models' configs say; fewer blocks than they have
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "FLUX.1 dev": ("flux", {"num_layers": 2, "num_single_layers": 2, "guidance_embeds": True}),
    "FLUX.1 schnell": ("flux", {"num_layers": 2, "num_single_layers": 2}),
    "FLUX.1 Depth": ("flux", {"num_layers": 1, "num_single_layers": 1, "in_channels": 128,
                              "out_channels": 64, "guidance_embeds": True}),
    "Chroma": ("chroma", {"num_layers": 2, "num_single_layers": 2}),
    "SD 3": ("sd3", {"num_layers": 2, "num_attention_heads": 24, "caption_projection_dim": 1536,
                     "pos_embed_max_size": 192}),
    "SD 3.5 medium": ("sd3", {"num_layers": 3, "num_attention_heads": 24, "qk_norm": "rms_norm",
                              "caption_projection_dim": 1536, "pos_embed_max_size": 384,
                              "dual_attention_layers": [0, 1]}),
    "SD 3.5 large": ("sd3", {"num_layers": 2, "num_attention_heads": 38, "qk_norm": "rms_norm",
                             "caption_projection_dim": 2432, "pos_embed_max_size": 192}),
    "Qwen-Image": ("qwen", {"num_layers": 2}),
    "Z-Image": ("z_image", {"n_layers": 2}),
}  # fmt: skip


def without_memory(make: Callable[[], Any]) -> Any:
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=True):
        return make()


@pytest.mark.parametrize("name", PUBLISHED)
def test_flow_config_of_published_shapes_is_the_published_one(name: str) -> None:
    import diffusers

    kind, config = PUBLISHED[name]
    network = without_memory(lambda: getattr(diffusers, CLASSES[kind])(**config))
    state = network.state_dict()
    if kind == "sd3":
        width, side = network.inner_dim, config["pos_embed_max_size"]
        state["pos_embed.pos_embed"] = torch.empty(1, side**2, width, device="meta")
    file = split(from_diffusers(state, kind), name)
    assert file.kind.name == kind
    back = to_diffusers(file.transformer, kind, name)
    assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in state.items()}
    told = infer.CONFIGS[file.class_name](back)
    for key, value in told.items():
        known = network.config[key]
        assert (list(value) if isinstance(value, tuple) else value) == (
            list(known) if isinstance(known, tuple) else known
        ), key


def randoms(kind: str) -> dict[str, Tensor]:
    import diffusers

    config = {
        "flux": tiny_flow.FLUX, "chroma": tiny_flow.CHROMA, "sd3": tiny_flow.SD3,
        "z_image": tiny_flow.Z_IMAGE,
    }[kind]  # fmt: skip
    more = {"guidance_embeds": True} if kind == "flux" else {}
    more |= {"qk_norm": "rms_norm", "dual_attention_layers": (0, 1)} if kind == "sd3" else {}
    torch.manual_seed(0)
    network = getattr(diffusers, CLASSES[kind])(**{**config, **more})
    return tiny_flow.randomised(network).state_dict()


def their_converter(kind: str) -> Callable[..., dict[str, Tensor]]:
    """diffusers', of FLUX.1 and Chroma for tokens that are 32 wide in place of 3072."""
    function = getattr(single_file_utils, f"convert_{kind}_transformer_checkpoint_to_diffusers")
    source = inspect.getsource(function).replace("inner_dim = 3072", "inner_dim = 32")
    space = dict(vars(single_file_utils))
    exec(compile(source, "<diffusers>", "exec"), space)
    return space[function.__name__]


@pytest.mark.parametrize("kind", ["flux", "chroma", "sd3", "z_image"])
def test_flow_names_are_those_that_diffusers_reads(kind: str) -> None:
    """Its own converter gives back every tensor, and so does ours; with ComfyUI's prefix too."""
    state = randoms(kind)
    original = from_diffusers(state, kind)
    assert identify(original).name == kind and len(original) < len(state)
    for prefix in ("", "model.diffusion_model."):
        file = {prefix + key: value for key, value in original.items()}
        theirs = their_converter(kind)(dict(file))
        ours = to_diffusers(split(file, kind).transformer, kind, kind)
        assert theirs.keys() == ours.keys() == state.keys()
        for key, value in state.items():
            assert torch.equal(theirs[key], value) and torch.equal(ours[key], value), key


@pytest.mark.parametrize("name", KINDS)
def test_flow_text_encoders_are_told_by_their_names(tmp_path: Path, name: str) -> None:
    from zeroconv.checkpoints.reading import read_weights

    folder = flow_bases.folder(name)
    for part, word in TEXTS[name].items():
        path = tmp_path / f"{word}.safetensors"
        assert text_files.kind_of_text(list(read_weights(folder / part)), path) == {
            "t5xxl": "t5", "qwen25_7b": "qwen2_5_vl", "qwen3_4b": "qwen3",
        }.get(word, word)  # fmt: skip


def test_flow_text_configs_of_published_shapes() -> None:
    from transformers import Qwen2_5_VLConfig, Qwen3Config, Qwen3Model, T5Config, T5EncoderModel
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel

    t5 = T5Config(vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=2, num_heads=64,
                  feed_forward_proj="gated-gelu")  # fmt: skip
    told = infer.t5_config(without_memory(lambda: T5EncoderModel(t5)).state_dict())
    assert all(getattr(t5, key) == told[key] for key in ("d_model", "d_kv", "d_ff", "num_heads"))

    qwen3 = Qwen3Config(
        vocab_size=512, hidden_size=2560, intermediate_size=9728, head_dim=128,
        num_hidden_layers=2, num_attention_heads=32, num_key_value_heads=8,
    )  # fmt: skip
    told = infer.qwen3_config(without_memory(lambda: Qwen3Model(qwen3)).state_dict())
    keys = ("hidden_size", "head_dim", "num_attention_heads", "num_key_value_heads")
    assert all(getattr(qwen3, key) == told[key] for key in keys)

    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    text = {"vocab_size": 512, "hidden_size": 3584, "intermediate_size": 18944,
            "num_hidden_layers": 2, "num_attention_heads": 28, "num_key_value_heads": 4,
            "rope_parameters": rope}  # fmt: skip
    config = Qwen2_5_VLConfig(text_config=text).text_config
    told = infer.qwen_vl_config(without_memory(lambda: Qwen2_5_VLTextModel(config)).state_dict())
    inner = told["text_config"]
    assert all(inner[key] == value for key, value in text.items() if key != "vocab_size")


def test_qwen_text_config_of_the_published_folder_is_built() -> None:
    """Its context is longer than those of the other text encoders, and its entries lie flat."""
    from zeroconv.backbones.loading.building_flow import build_qwen

    flat = {"model_type": "qwen2_5_vl", "hidden_size": 3584, "intermediate_size": 18944,
            "max_position_embeddings": 128000, "num_attention_heads": 28, "num_hidden_layers": 28,
            "num_key_value_heads": 4, "rope_theta": 1e6, "vocab_size": 152064,
            "rope_scaling": {"mrope_section": [16, 24, 24], "rope_type": "default"}}  # fmt: skip
    with pytest.raises(UserError, match=r"lacks embed_tokens\.weight, layers"):
        build_qwen(flat, {}, "folder", kind="qwen2_5_vl")


def test_qwen_vae_of_published_shapes_in_its_original_names() -> None:
    """Wan's names, of which diffusers has a converter for this very network."""
    from diffusers import AutoencoderKLQwenImage

    network = AutoencoderKLQwenImage(base_dim=4, z_dim=4, latents_mean=[0.0] * 4,
                                     latents_std=[1.0] * 4)  # fmt: skip
    state = network.state_dict()
    original = wan_names(list(state))
    theirs = single_file_utils.convert_wan_vae_to_diffusers(
        {old: state[new] for new, old in original.items()}
    )
    assert theirs.keys() == state.keys()
    config, ours = of_video_vae({old: state[new] for new, old in original.items()}, "file")
    assert ours.keys() == state.keys()
    assert all(torch.equal(ours[key], value) for key, value in state.items())
    assert all(list(network.config[k]) == v if isinstance(v, list) else network.config[k] == v
               for k, v in config.items())  # fmt: skip
    assert of_video_vae(state, "file")[0] == config


def wan_names(names: list[str]) -> dict[str, str]:
    """diffusers' name → Wan's, by asking diffusers' converter for every candidate."""
    halves = ("encoder", "decoder")
    candidates = [f"conv{n}.{w}" for n in (1, 2) for w in ("weight", "bias")]
    ends = ["residual.0.gamma", "residual.3.gamma"]
    for part in ("residual.2", "residual.6", "shortcut", "resample.1", "time_conv"):
        ends += [f"{part}.weight", f"{part}.bias"]
    for half in halves:
        candidates += [f"{half}.conv1.{w}" for w in ("weight", "bias")]
        candidates += [f"{half}.head.{w}" for w in ("0.gamma", "2.weight", "2.bias")]
        candidates += [f"{half}.middle.1.{w}" for w in (
            "norm.gamma", "to_qkv.weight", "to_qkv.bias", "proj.weight", "proj.bias")]  # fmt: skip
        side = "downsamples" if half == "encoder" else "upsamples"
        places = [f"{half}.middle.{i}" for i in (0, 2)] + [f"{half}.{side}.{i}" for i in range(15)]
        candidates += [f"{place}.{end}" for place in places for end in ends]
    known = {
        next(iter(single_file_utils.convert_wan_vae_to_diffusers({c: torch.ones(1)}))): c
        for c in candidates
    }
    return {name: known[name] for name in names}


def test_flow_file_of_another_family_is_refused() -> None:
    state = from_diffusers(randoms("flux"), "flux")
    with pytest.raises(UserError, match=r"is a FLUX\.2, which zeroconv does not run"):
        split({**state, "single_stream_modulation.lin.weight": torch.ones(1)}, "flux2.safetensors")
    with pytest.warns(UserWarning, match="holds 1 tensors that no part of the base reads"):
        split({**{f"model.diffusion_model.{k}": v for k, v in state.items()},
               "something.else": torch.ones(1)}, "flux.safetensors")  # fmt: skip


def test_flow_file_whose_rows_do_not_divide_is_refused() -> None:
    state = from_diffusers(randoms("flux"), "flux")
    state["double_blocks.0.img_attn.qkv.weight"] = torch.ones(97, 32)
    with pytest.raises(UserError, match="divides into no 3 parts"):
        to_diffusers(state, "flux", "file")
