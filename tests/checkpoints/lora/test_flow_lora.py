"""LoRAs of diffusion transformers in every layout, merged as diffusers' converters read them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders import lora_conversion_utils
from safetensors.torch import save_file
from torch import Tensor

from tests.helpers import flow_bases, tiny_flow
from tests.helpers.flow_files import KINDS
from zeroconv.backbones import load_backbone
from zeroconv.checkpoints import identify
from zeroconv.checkpoints.flow.file import from_diffusers
from zeroconv.checkpoints.lora import merge, read_lora
from zeroconv.cli.info.report import describe
from zeroconv.errors import UserError


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, Tensor]]:
    import diffusers

    torch.manual_seed(0)
    networks = {
        "flux": diffusers.FluxTransformer2DModel(**{**tiny_flow.FLUX, "guidance_embeds": True}),
        "sd3": diffusers.SD3Transformer2DModel(**tiny_flow.SD3),
        "qwen": diffusers.QwenImageTransformer2DModel(**tiny_flow.QWEN),
        "zimage": diffusers.ZImageTransformer2DModel(**tiny_flow.Z_IMAGE),
    }
    return {k: dict(tiny_flow.randomised(net).state_dict()) for k, net in networks.items()}


def pairs(
    state: dict[str, Tensor], modules: list[str], form: str, words: tuple[str, str]
) -> dict[str, Tensor]:
    """A file's tensors for these modules of a state dict. form: how a module is written."""
    g = torch.Generator().manual_seed(1)
    made = {}
    for module in modules:
        out, into = state[f"{module}.weight"].shape
        name = form.format(module if form.endswith(".{}") else module.replace(".", "_"))
        made[f"{name}.{words[0]}.weight"] = torch.randn(3, into, generator=g)
        made[f"{name}.{words[1]}.weight"] = torch.randn(out, 3, generator=g)
        if words[0] == "lora_down":
            made[f"{name}.alpha"] = torch.tensor(1.5)
    return made


FAMILIES = {"flux": "FLUX.1", "sd3": "SD 3", "qwen": "Qwen-Image", "zimage": "Z-Image"}
KOHYA, PEFT = ("lora_down", "lora_up"), ("lora_A", "lora_B")
ORIGINAL = {
    "flux": ["double_blocks.0.img_attn.qkv", "double_blocks.1.txt_attn.qkv",
             "double_blocks.2.img_mod.lin", "double_blocks.0.txt_mlp.2", "single_blocks.1.linear1",
             "single_blocks.4.linear2", "single_blocks.0.modulation.lin", "img_in", "txt_in",
             "final_layer.linear", "guidance_in.in_layer"],
    "sd3": ["joint_blocks.0.x_block.attn.qkv", "joint_blocks.1.context_block.attn.qkv",
            "joint_blocks.4.context_block.adaLN_modulation.1", "joint_blocks.2.x_block.mlp.fc1",
            "final_layer.adaLN_modulation.1", "context_embedder", "t_embedder.mlp.0"],
    "zimage": ["layers.0.attention.qkv", "noise_refiner.1.attention.out", "x_embedder",
               "layers.2.feed_forward.w1", "cap_embedder.1"],
    "qwen": ["transformer_blocks.0.attn.to_q", "transformer_blocks.1.attn.add_k_proj",
             "transformer_blocks.2.img_mod.1", "img_in", "proj_out"],
}  # fmt: skip


def written(made: dict[str, Tensor], path: Path) -> Path:
    save_file(made, path)
    assert identify(path).name == "lora"
    return path


@pytest.mark.parametrize("name", ORIGINAL)
@pytest.mark.parametrize(("form", "words"), [
    ("lora_unet_{}", KOHYA), ("diffusion_model.{}", PEFT), ("model.diffusion_model.{}", KOHYA),
    ("lycoris_{}", KOHYA),
])  # fmt: skip
def test_flow_lora_in_original_names_changes_the_original_weights(
    states, tmp_path: Path, name: str, form: str, words: tuple[str, str]
) -> None:
    """One matrix of the file is several of the base: in the original layout it is added to one."""
    original = from_diffusers(states[name], KINDS[name])
    made = pairs(original, ORIGINAL[name], form, words)
    lora = read_lora(written(made, tmp_path / "lora.safetensors"))
    assert describe(str(lora.where))["family"] == FAMILIES[name]
    merged = from_diffusers(merge(states[name], lora, "unet", 0.5), KINDS[name])
    scale = 0.5 * (1.5 / 3 if words == KOHYA else 1)
    for key, value in original.items():
        module = key.removesuffix(".weight")
        if key.endswith(".weight") and module in ORIGINAL[name]:
            written_as = module if form.endswith(".{}") else module.replace(".", "_")
            down, up = (made[f"{form.format(written_as)}.{word}.weight"] for word in words)
            value = value + scale * (up @ down)
        assert torch.allclose(merged[key], value, atol=1e-4), key


def their(function: str, made: dict[str, Tensor]) -> dict[str, Tensor]:
    """By diffusers' converter, of a FLUX.1 whose tokens are 32 wide."""
    source = inspect.getsource(getattr(lora_conversion_utils, function))
    source = source.replace("[3072, 3072, 3072, 12288]", "[32, 32, 32, 128]")
    space = dict(vars(lora_conversion_utils))
    exec(compile(source, "<diffusers>", "exec"), space)
    return space[function](dict(made))


def added(state: dict[str, Tensor], peft: dict[str, Tensor]) -> dict[str, Tensor]:
    out = dict(state)
    for key, down in peft.items():
        if key.endswith(".lora_A.weight"):
            module = key.removesuffix(".lora_A.weight")
            name = f"{module.removeprefix('transformer.')}.weight"
            out[name] = out[name] + peft[f"{module}.lora_B.weight"] @ down
    return out


def flux_xlabs(state: dict[str, Tensor]) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(2)
    made = {}
    shapes = {f"double_blocks.0.processor.{a}_lora{n}": (r, 32)
              for a, r in (("qkv", 96), ("proj", 32)) for n in (1, 2)}  # fmt: skip
    shapes |= {"single_blocks.2.processor.qkv_lora": (96, 32),
               "single_blocks.2.processor.proj_lora": (32, 160)}  # fmt: skip
    for name, (out, into) in shapes.items():
        made[f"{name}.down.weight"] = torch.randn(3, into, generator=g)
        made[f"{name}.up.weight"] = torch.randn(out, 3, generator=g)
    return made


FLAT = ["transformer_blocks.0.attn.to_q", "single_transformer_blocks.1.attn.to_v",
        "transformer_blocks.1.attn.to_out.0", "x_embedder"]  # fmt: skip
CASES: dict[str, tuple[str, str, Any]] = {
    "FLUX, kohya": ("flux", "_convert_kohya_flux_lora_to_diffusers",
                    lambda s: pairs(from_diffusers(s, "flux"), ORIGINAL["flux"][:7],
                                    "lora_unet_{}", KOHYA)),
    "FLUX, names of both": ("flux", "_convert_kohya_flux_lora_to_diffusers",
                            lambda s: pairs(s, FLAT, "lora_transformer_{}", KOHYA)),
    "FLUX, XLabs": ("flux", "_convert_xlabs_flux_lora_to_diffusers", flux_xlabs),
    "Qwen-Image, kohya": ("qwen", "_convert_non_diffusers_qwen_lora_to_diffusers",
                          lambda s: pairs(s, [m for m in ORIGINAL["qwen"] if "mod" not in m],
                                          "lora_unet_{}", KOHYA)),
    "Qwen-Image, ComfyUI": ("qwen", "_convert_non_diffusers_qwen_lora_to_diffusers",
                            lambda s: pairs(s, ORIGINAL["qwen"], "diffusion_model.{}", PEFT)),
    "Z-Image, ComfyUI": ("zimage", "_convert_non_diffusers_z_image_lora_to_diffusers",
                         lambda s: pairs(s, ["layers.0.attention.to_q", "layers.1.feed_forward.w2",
                                             "layers.1.attention.to_out.0"],
                                         "diffusion_model.{}", PEFT)),
    "Z-Image, kohya": ("zimage", "_convert_non_diffusers_z_image_lora_to_diffusers",
                       lambda s: pairs(s, ["layers.0.attention.to_q", "layers.1.feed_forward.w2"],
                                       "lora_unet_{}", KOHYA)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_flow_lora_is_read_as_diffusers_converts_it(states, tmp_path: Path, name: str) -> None:
    family, function, make = CASES[name]
    made = make(states[family])
    lora = read_lora(written(made, tmp_path / "lora.safetensors"))
    ours = merge(states[family], lora, "unet")
    theirs = added(states[family], their(function, made))
    changed = 0
    for key, value in theirs.items():
        assert torch.allclose(ours[key], value, atol=1e-4), key
        changed += not torch.equal(value, states[family][key])
    assert changed >= 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_flux_lora_of_diffusers_makes_its_pipelines_output(tmp_path: Path) -> None:
    """Saved by diffusers with its own α; of the transformer and of CLIP."""
    from diffusers import FluxPipeline, FluxTransformer2DModel
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    folder = flow_bases.folder("flux")
    network = FluxTransformer2DModel.from_pretrained(folder / "transformer")
    config = LoraConfig(r=2, lora_alpha=5, target_modules=["to_q", "to_add_out", "proj_mlp"])
    network.add_adapter(config)
    for key, parameter in network.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(parameter, std=0.2)
    FluxPipeline.save_lora_weights(
        tmp_path / "lora", transformer_lora_layers=get_peft_model_state_dict(network),
        transformer_lora_adapter_metadata=config.to_dict() | {"target_modules": ["to_q"]},
    )  # fmt: skip
    base: Any = load_backbone(folder, lora=tmp_path / "lora")
    plain: Any = load_backbone(folder)
    z, _, t = tiny_flow.inputs()
    text = plain.embed_text(["a", "red ball"])
    with torch.no_grad():
        ours, before = base.predict(z, t, text), plain.predict(z, t, text)
        plain.transformer = network
        theirs = plain.predict(z, t, text)
    assert tiny_flow.relative(ours, theirs) < 1e-5 and tiny_flow.relative(before, theirs) > 0.01


def test_flow_lora_of_text_encoders(tmp_path: Path) -> None:
    """CLIP-L under kohya's te1, T5 under te3; a part of its own strength."""
    folder = flow_bases.folder("flux")
    g = torch.Generator().manual_seed(3)
    made = {}
    t5 = "encoder.block.0.layer.0.SelfAttention.q"
    modules = {"lora_te1_text_model_encoder_layers_0_mlp_fc1": (32, 16),
               f"lora_te3_{t5.replace('.', '_')}": (16, 24)}  # fmt: skip
    for name, (out, into) in modules.items():
        made |= {f"{name}.lora_down.weight": torch.randn(2, into, generator=g),
                 f"{name}.lora_up.weight": torch.randn(out, 2, generator=g)}  # fmt: skip
    file = written(made, tmp_path / "lora.safetensors")
    plain: Any = flow_bases.base("flux")
    base: Any = load_backbone(folder, lora=(str(file), {"te1": 0.5}))
    down, up = (made[f"lora_te3_{t5.replace('.', '_')}.lora_{x}.weight"] for x in ("down", "up"))
    weights = [b.text_encoders[1].state_dict()[f"{t5}.weight"] for b in (base, plain)]
    assert torch.allclose(weights[0], weights[1] + up @ down, atol=1e-5)
    key = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
    delta = made[f"{key}.lora_up.weight"] @ made[f"{key}.lora_down.weight"]
    name = next(k for k in plain.text_encoders[0].state_dict() if k.endswith("0.mlp.fc1.weight"))
    weights = [b.text_encoders[0].state_dict()[name] for b in (base, plain)]
    assert torch.allclose(weights[0], weights[1] + 0.5 * delta, atol=1e-5)


def test_flow_lora_of_other_kinds_is_divided_too(states, tmp_path: Path) -> None:
    """LoKr and LoHa of query, key and value in one matrix; a DoRA with a length for each output."""
    state, g = states["zimage"], torch.Generator().manual_seed(4)
    original = from_diffusers(state, "z_image")
    name = "lora_unet_layers_0_attention_qkv"
    one, two = torch.randn(3, 2, generator=g), torch.randn(32, 16, generator=g)
    hada = [torch.randn(96, 2, generator=g), torch.randn(2, 32, generator=g),
            torch.randn(96, 2, generator=g), torch.randn(2, 32, generator=g)]  # fmt: skip
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    down, up = torch.randn(2, 32, generator=g), torch.randn(96, 2, generator=g)
    length = torch.rand(96, generator=g)
    weight = original["layers.0.attention.qkv.weight"]
    bent = weight + up @ down
    cases = {
        "lokr": ({"lokr_w1": one, "lokr_w2": two}, weight + torch.kron(one, two)),
        "loha": (dict(zip(names, hada, strict=True)),
                 weight + (hada[0] @ hada[1]) * (hada[2] @ hada[3])),
        "dora": ({"lora_down.weight": down, "lora_up.weight": up, "dora_scale": length[:, None]},
                 bent * (length / bent.norm(dim=1))[:, None]),
    }  # fmt: skip
    for kind, (tensors, wanted) in cases.items():
        made = {f"{name}.{role}": value for role, value in tensors.items()}
        lora = read_lora(written(made, tmp_path / f"{kind}.safetensors"))
        merged = from_diffusers(merge(state, lora, "unet"), "z_image")
        assert torch.allclose(merged["layers.0.attention.qkv.weight"], wanted, atol=1e-4), kind
    made = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up,
            f"{name}.dora_scale": torch.rand(1, 32)}  # fmt: skip
    lora = read_lora(written(made, tmp_path / "inputs.safetensors"))
    with pytest.raises(UserError, match="a DoRA's length for each input"):
        merge(state, lora, "unet")


def test_flow_lora_under_two_names_is_merged_once(states, tmp_path: Path) -> None:
    """As some trainers of Z-Image write it."""
    state = states["zimage"]
    one = ["layers.0.attention.to_q", "layers.0.attention.to_out.0"]
    made = pairs(state, one, "diffusion_model.{}", PEFT)
    alone = read_lora(written(made, tmp_path / "one.safetensors"))
    fused = ["layers.0.attention.qkv", "layers.0.attention.out"]
    made |= pairs(from_diffusers(state, "z_image"), fused, "diffusion_model.{}", PEFT)
    both = read_lora(written(made, tmp_path / "two.safetensors"))
    with pytest.warns(UserWarning, match="twice, under the names of two layouts"):
        merged = merge(state, both, "unet")
    wanted = merge(state, alone, "unet")
    assert all(torch.equal(merged[key], value) for key, value in wanted.items())


def test_flow_lora_of_another_base_is_refused(states, tmp_path: Path) -> None:
    made = pairs(states["qwen"], ["transformer_blocks.0.img_mod.1"], "transformer.{}", PEFT)
    lora = read_lora(written(made, tmp_path / "qwen.safetensors"))
    with pytest.raises(UserError, match="which this unet lacks; it belongs to another base"):
        merge(states["flux"], lora, "unet")
    folder = flow_bases.folder("zimage")
    text = {"lora_te2_x.lora_down.weight": torch.ones(2, 2),
            "lora_te2_x.lora_up.weight": torch.ones(2, 2)}  # fmt: skip
    with pytest.raises(UserError, match="changes text_encoder_2, which this base lacks"):
        load_backbone(folder, lora=written(text, tmp_path / "text.safetensors"))
    biased = {"transformer.x_embedder.lora_B.bias": torch.ones(2)}
    with pytest.raises(UserError, match="a LoRA with biases"):
        read_lora(written(biased, tmp_path / "biased.safetensors"))
