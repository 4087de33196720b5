"""LoRA files of every usual layout, merged: the weights that diffusers' own fusing gives."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.helpers.tiny import inputs, tiny_backbone, tiny_unet
from tests.helpers.tiny_folder import save_backbone, save_single_file
from zeroconv.backbones import load_backbone
from zeroconv.checkpoints.lora import BASE, FILE, merge, parse_lora, read_lora
from zeroconv.checkpoints.names import Topology, unet_names
from zeroconv.errors import UserError

TARGETS = [
    "to_q",
    "to_out.0",
    "proj_in",
    "ff.net.2",
    "conv1",
    "conv_shortcut",
    "time_emb_proj",
    "downsamplers.0.conv",
]
RANK = 4


@pytest.fixture(scope="module")
def adapter() -> dict[str, torch.Tensor]:
    """Matrices that are not zero, for attention, linear layers and convolutions, under peft's
    names.
    """
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    unet = tiny_unet()
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS))
    generator = torch.Generator().manual_seed(5)
    state = get_peft_model_state_dict(unet)
    return {
        name: 0.1 * torch.randn(value.shape, generator=generator) for name, value in state.items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "sd"
    save_backbone(folder)
    return folder


def pipeline(folder):
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)


def assert_equal_weights(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    named = {name.removeprefix("text_model."): value for name, value in ours.state_dict().items()}
    their = {name.removeprefix("text_model."): value for name, value in theirs.state_dict().items()}
    for name, value in named.items():
        torch.testing.assert_close(value, their[name], rtol=0, atol=1e-5)


def changed(ours: torch.nn.Module, before: torch.nn.Module) -> int:
    old = before.state_dict()
    return sum(not torch.equal(value, old[name]) for name, value in ours.state_dict().items())


def diffusers_file(path, adapter):
    from diffusers import StableDiffusionPipeline

    StableDiffusionPipeline.save_lora_weights(path, unet_lora_layers=adapter)
    return path / FILE


def kohya(adapter, names=lambda module: module, alpha: float = 2.0, prefix: str = "lora_unet_"):
    state = {}
    for name, value in adapter.items():
        module, kind = name.removesuffix(".weight").rsplit(".lora_", 1)
        flat = prefix + names(module).replace(".", "_")
        state[f"{flat}.lora_{'down' if kind == 'A' else 'up'}.weight"] = value.contiguous()
        state[f"{flat}.alpha"] = torch.tensor(alpha)
    return state


def fused(unet, adapter, weight: float):
    unet.load_lora_adapter(adapter, prefix=None)
    unet.fuse_lora(lora_scale=weight)
    unet.unload_lora()
    return unet


@pytest.mark.parametrize("weight", [1.0, 0.35, -0.5])
def test_lora_of_diffusers_layout_equals_diffusers_fusing(adapter, folder, tmp_path, weight):
    file = diffusers_file(tmp_path, adapter)
    ours = load_backbone(folder, lora=[(file, weight)])
    assert_equal_weights(ours.unet, fused(tiny_unet(), adapter, weight))
    assert changed(ours.unet, tiny_unet()) == len(adapter) // 2
    # its folder, and the command line's way to say it
    again = load_backbone(folder, lora=f"{tmp_path}:{weight}")
    assert_equal_weights(again.unet, ours.unet)


def test_merged_weights_predict_what_the_adapter_predicts(adapter, folder, tmp_path):
    ours = load_backbone(folder, lora=diffusers_file(tmp_path, adapter))
    unet = tiny_unet()
    unet.load_lora_adapter(adapter, prefix=None)
    z, _, t, text = inputs(ours)
    with torch.no_grad():
        theirs = unet(z, t, text.hidden).sample
        torch.testing.assert_close(
            ours.decode(ours.encode(z, t, text), t, text), theirs, rtol=0, atol=2e-5
        )


def test_kohyas_layout_is_what_diffusers_makes_of_it(adapter, folder, tmp_path):
    # all that diffusers' reader takes
    attention = {name: value for name, value in adapter.items() if "attn" in name}
    state = kohya(attention)
    save_file(state, tmp_path / "style.safetensors")
    ours = load_backbone(folder, lora=f"{tmp_path / 'style.safetensors'}:0.8")
    pipe = pipeline(folder)
    pipe.load_lora_weights(dict(state))
    pipe.fuse_lora(lora_scale=0.8)
    pipe.unload_lora_weights()
    assert_equal_weights(ours.unet, pipe.unet)
    assert changed(ours.unet, tiny_unet()) == len(attention) // 2


def test_a_text_encoder_is_changed_as_peft_does(folder, tmp_path):
    from peft import LoraConfig, get_peft_model

    text = load_backbone(folder).text_encoders[0]
    model = get_peft_model(
        text, LoraConfig(r=RANK, lora_alpha=3.0, target_modules=["q_proj", "fc1"])
    )
    generator, state = torch.Generator().manual_seed(6), {}
    for name, value in model.named_parameters():
        if ".lora_" in name:
            value.data = 0.1 * torch.randn(value.shape, generator=generator)
            state[name.removeprefix("base_model.model.").replace(".default", "")] = (
                value.detach().clone()
            )
    assert len(state) == 8
    theirs = model.merge_and_unload()
    with_prefix = {f"text_model.{name}": value for name, value in state.items()}
    for spelled in (state, with_prefix):
        save_file(kohya(spelled, alpha=3.0, prefix="lora_te_"), tmp_path / "text.safetensors")
        ours = load_backbone(folder, lora=tmp_path / "text.safetensors")
        assert_equal_weights(ours.text_encoders[0], theirs)
        assert changed(ours.text_encoders[0], load_backbone(folder).text_encoders[0]) == 4


def test_kohyas_layout_under_both_families_of_names(adapter, folder, tmp_path):
    original = unet_names(Topology.of_diffusers(tiny_unet().state_dict()))

    def theirs(module: str) -> str:
        owner = next(
            o
            for o in sorted(original, key=len, reverse=True)
            if module == o or module.startswith(f"{o}.")
        )
        return original[owner] + module[len(owner) :]

    for name, names in (("diffusers", lambda module: module), ("original", theirs)):
        save_file(kohya(adapter, names), tmp_path / f"{name}.safetensors")
        ours = load_backbone(folder, lora=tmp_path / f"{name}.safetensors")
        assert_equal_weights(ours.unet, fused(tiny_unet(), adapter, 2.0 / RANK))


def test_peft_and_older_diffusers_spellings(adapter, tmp_path):
    state, wanted = tiny_unet().state_dict(), fused(tiny_unet(), adapter, 1.0).state_dict()
    attention = {n: v for n, v in adapter.items() if "attn1.to_" in n}
    spellings = {
        "bare": adapter,
        "peft": {f"base_model.model.{name}": value for name, value in adapter.items()},
        "older": {
            f"unet.{n.replace('lora_A', 'lora.down').replace('lora_B', 'lora.up')}": v
            for n, v in adapter.items()
        },
        "oldest": {
            n.replace(".to_out.0.", ".to_out.")
            .replace(".to_", ".processor.to_")
            .replace(".lora_A", "_lora.down")
            .replace(".lora_B", "_lora.up"): v
            for n, v in attention.items()
        },
    }
    for name, spelled in spellings.items():
        save_file(
            {key: value.contiguous() for key, value in spelled.items()},
            tmp_path / f"{name}.safetensors",
        )
        merged = merge(state, read_lora(tmp_path / f"{name}.safetensors"), "unet")
        for key, value in merged.items():
            if name != "oldest" or "attn1.to_" in key:
                torch.testing.assert_close(value, wanted[key], rtol=0, atol=1e-5)
            else:
                assert torch.equal(value, state[key])


def test_alpha_of_a_header_and_of_a_peft_folder(adapter, tmp_path):
    state, wanted = tiny_unet().state_dict(), fused(tiny_unet(), adapter, 0.5).state_dict()
    one = next(name for name in adapter).rpartition(".lora_")[0]
    header = {
        "lora_adapter_metadata": json.dumps(
            {"unet.lora_alpha": RANK / 2, "unet.alpha_pattern": {one: RANK}}
        )
    }
    tensors = {f"unet.{name}": value.contiguous() for name, value in adapter.items()}
    save_file(tensors, tmp_path / FILE, metadata=header)
    merged = merge(state, read_lora(tmp_path / FILE), "unet")
    full = fused(tiny_unet(), adapter, 1.0).state_dict()
    for key, value in merged.items():
        torch.testing.assert_close(
            value, (full if key == f"{one}.weight" else wanted)[key], rtol=0, atol=1e-5
        )
    folder = tmp_path / "peft"
    folder.mkdir()
    save_file(
        {f"base_model.model.{n}": v.contiguous() for n, v in adapter.items()},
        folder / "adapter_model.safetensors",
    )
    (folder / "adapter_config.json").write_text(
        json.dumps({"r": RANK, "lora_alpha": 1.0, "use_rslora": True})
    )
    merged = merge(state, read_lora(folder), "unet")  # rank-stabilised: α/√r = 1/2
    for key, value in merged.items():
        torch.testing.assert_close(value, wanted[key], rtol=0, atol=1e-5)


def test_several_add_up_and_one_file_bases_take_them(adapter, tmp_path):
    backbone = tiny_backbone()
    file = save_single_file(tmp_path / "model.safetensors", backbone)
    lora = diffusers_file(tmp_path, adapter)
    ours = load_backbone(file, lora=[(lora, 0.75), f"{lora}:0.25"])
    assert_equal_weights(ours.unet, fused(tiny_unet(), adapter, 1.0))


def test_a_folder_that_names_its_base_is_a_base(adapter, folder, tmp_path):
    style = folder.parent / "style"
    diffusers_file(style, adapter)
    (style / BASE).write_text(json.dumps({"base": "sd", "weight": 0.5}))
    ours = load_backbone(style)
    assert ours.name == str(style)
    assert_equal_weights(ours.unet, fused(tiny_unet(), adapter, 0.5))
    (style / BASE).write_text(json.dumps({"base": "style"}))
    with pytest.raises(UserError, match="itself as its base"):
        load_backbone(style)
    (style / BASE).write_text("{}")
    with pytest.raises(UserError, match="names no base"):
        load_backbone(style)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a.safetensors", ("a.safetensors", 1.0)),
        ("a.safetensors:0.8", ("a.safetensors", 0.8)),
        ("folder/a:-1", ("folder/a", -1.0)),
        ("owner/name:2", ("owner/name", 2.0)),
        ("strange:name/a.safetensors", ("strange:name/a.safetensors", 1.0)),
    ],
)
def test_a_weight_behind_a_colon(text, read):
    assert parse_lora(text) == read


def test_lora_that_cannot_be_merged_is_refused(adapter, folder, tmp_path):
    def refused(state, sentence):
        save_file({key: value.clone() for key, value in state.items()}, tmp_path / "x.safetensors")
        with pytest.raises(UserError, match=sentence) as caught:
            load_backbone(folder, lora=tmp_path / "x.safetensors")
        assert "\n" not in str(caught.value)

    first, value = next(iter(adapter.items()))
    refused({first: value}, "has down alone")
    refused({first.replace("lora_A.weight", "hada_w1_a"): value}, "lacks hada_w1_b")
    up = torch.zeros(4, value.shape[0], 1, 1)
    refused(
        {"down_blocks.9.x.lora_A.weight": value, "down_blocks.9.x.lora_B.weight": up},
        "changes down_blocks.9.x",
    )
    wrong = {**adapter, first: torch.zeros(RANK, 7, 3, 3)}
    refused(wrong, "its weight is .* another size")
    refused(
        {"lora_te2_a.lora_down.weight": value, "lora_te2_a.lora_up.weight": up},
        "text_encoder_2, which this",
    )
    with pytest.raises(UserError, match="has the weight 'much'"):
        load_backbone(folder, lora="x.safetensors:much")
    with pytest.raises(UserError, match="no LoRA"):
        load_backbone(folder, lora=tmp_path / "none.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no LoRA"):
        load_backbone(folder, lora=tmp_path / "empty")


# ---------------------------------------------------------------- malformed files

M = "lora_unet_mid_block_attentions_0_proj_in"
DOWN, UP, ALPHA = f"{M}.lora_down.weight", f"{M}.lora_up.weight", f"{M}.alpha"
GOOD = {DOWN: torch.zeros(2, 8), UP: torch.zeros(8, 2)}
MALFORMED = {
    "rank 0": ({DOWN: torch.zeros(0, 8), UP: torch.zeros(8, 0)}, "rank 0"),
    "no inputs": ({DOWN: torch.zeros(2, 0), UP: torch.zeros(8, 2)}, "rank 0"),
    "two ranks": ({DOWN: torch.zeros(2, 8), UP: torch.zeros(8, 3)}, "different ranks"),
    "vectors": ({DOWN: torch.zeros(8), UP: torch.zeros(8)}, "no two matrices"),
    "numbers": ({DOWN: torch.tensor(1.0), UP: torch.tensor(1.0)}, "no two matrices"),
    "whole numbers": (
        {DOWN: torch.zeros(2, 8).int(), UP: torch.zeros(8, 2).int()},
        "no two matrices",
    ),
    "one matrix": ({DOWN: torch.zeros(2, 8)}, "needs both matrices"),
    "alpha alone": ({ALPHA: torch.tensor(1.0)}, "no LoRA|needs both matrices"),
    "alpha NaN": ({**GOOD, ALPHA: torch.tensor(float("nan"))}, "no numbers"),
    "alpha of three": ({**GOOD, ALPHA: torch.ones(3)}, "alpha .* no number"),
    "empty alpha": ({**GOOD, ALPHA: torch.zeros(0)}, "alpha .* no number"),
    "NaN": ({**GOOD, UP: torch.full((8, 2), float("nan"))}, "no numbers"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_lora_is_one_sentence(tmp_path, name):
    state, words = MALFORMED[name]
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=words) as caught:
        read_lora(tmp_path / "x.safetensors")
    assert str(tmp_path / "x.safetensors") in str(caught.value)


WRONG_ALPHAS = (
    "[]",
    "{",
    "3",
    '{"lora_alpha": "much"}',
    '{"alpha_pattern": [1]}',
    '{"lora_alpha": null, "alpha_pattern": {"": {}}}',
)


@pytest.mark.parametrize("config", WRONG_ALPHAS)
def test_an_alpha_that_a_header_or_a_config_gets_wrong_is_one_sentence(tmp_path, config):
    state = {"unet.a.lora_A.weight": torch.zeros(2, 8), "unet.a.lora_B.weight": torch.zeros(8, 2)}
    save_file(state, tmp_path / "x.safetensors", metadata={"lora_adapter_metadata": config})
    (tmp_path / "peft").mkdir()
    save_file(state, tmp_path / "peft" / "adapter_model.safetensors")
    (tmp_path / "peft" / "adapter_config.json").write_text(config)
    for path in (tmp_path / "x.safetensors", tmp_path / "peft"):
        with pytest.raises(UserError) as caught:
            read_lora(path)
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- other spellings, every part

UNET_MODULE = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
TEXT_MODULE = "text_model.encoder.layers.0.self_attn.q_proj"
SPELLINGS = {  # (what one finds in a file, the part that it changes)
    "lora_unet." + UNET_MODULE + ".lora_{}.weight": "unet",
    "diffusion_model." + UNET_MODULE + ".lora_{}.weight": "unet",
    "unet." + UNET_MODULE + ".lora_{}.style.weight": "unet",
    "lora_te." + TEXT_MODULE + ".lora_{}.weight": "text_encoder",
    "lora_te1." + TEXT_MODULE + ".lora_{}.weight": "text_encoder",
    "lora_te2." + TEXT_MODULE + ".lora_{}.weight": "text_encoder_2",
    "clip_l." + TEXT_MODULE + ".lora_{}.weight": "text_encoder",
    "clip_g." + TEXT_MODULE + ".lora_{}.weight": "text_encoder_2",
    "base_model.model." + TEXT_MODULE + ".lora_{}.weight": "text_encoder",
    "text_encoder." + TEXT_MODULE.replace("q_proj", "to_q_lora.{}.weight"): "text_encoder",
}


def spelled(name: str, down: torch.Tensor, up: torch.Tensor) -> dict[str, torch.Tensor]:
    ends = (
        ("down", "up") if "to_q_lora" in name or name.startswith(("lora", "clip")) else ("A", "B")
    )
    return dict(zip([name.format(end) for end in ends], (down, up), strict=True))


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("name", SPELLINGS)
def test_lora_spellings_of_other_trainers(tmp_path, name, suffix):
    module, width = (UNET_MODULE, 16) if SPELLINGS[name] == "unet" else (TEXT_MODULE, 16)
    down, up = torch.randn(2, width), torch.randn(width, 2)
    path = tmp_path / f"style{suffix}"
    if suffix == ".bin":
        torch.save(spelled(name, down, up), path)
    else:
        save_file(spelled(name, down, up), path)

    state = {f"{module}.weight": torch.zeros(width, width)}
    if SPELLINGS[name] == "unet":
        state = {**tiny_unet().state_dict(), f"{module}.weight": torch.zeros(width, width)}
    lora = read_lora(path)
    assert list(lora.parts) == [SPELLINGS[name]]
    merged = merge(state, lora, SPELLINGS[name])
    torch.testing.assert_close(merged[f"{module}.weight"], up @ down)


def test_lora_with_two_adapters_is_refused_and_words_in_it_are_noted(tmp_path):
    down, up = torch.randn(2, 16), torch.randn(16, 2)
    names = [f"unet.{UNET_MODULE}.lora_{{}}.{adapter}.weight" for adapter in ("one", "two")]
    save_file(
        {**spelled(names[0], down, up), **spelled(names[1], down + 0, up + 0)},
        tmp_path / "two.safetensors",
    )
    with pytest.raises(UserError, match="several adapters"):
        read_lora(tmp_path / "two.safetensors")

    words = {"bundle_emb.corgi.string_to_param.*": torch.zeros(1, 16)}
    save_file({**spelled(names[0], down, up), **words}, tmp_path / "words.safetensors")
    with pytest.warns(UserWarning, match="embeddings of the words corgi"):
        assert list(read_lora(tmp_path / "words.safetensors").parts) == ["unet"]


@pytest.mark.parametrize("weight", [1e38, float("inf"), float("nan")])
def test_lora_whose_sum_overflows_is_named(tmp_path, weight):
    path = tmp_path / "style.safetensors"
    save_file(
        spelled(f"unet.{UNET_MODULE}.lora_{{}}.weight", torch.ones(2, 16), 1e3 * torch.ones(16, 2)),
        path,
    )
    with pytest.raises(UserError, match=r"style\.safetensors.*overflows with the weight"):
        merge(tiny_unet().state_dict(), read_lora(path), "unet", weight)
