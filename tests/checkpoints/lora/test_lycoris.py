"""LoHa, LoKr, DoRA and whole differences: peft's own merges, and formulas written out here."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.helpers.tiny import tiny_backbone_xl_file, tiny_unet, tiny_unet_xl
from tests.helpers.tiny_folder import save_single_file
from zeroconv.backbones import load_backbone
from zeroconv.checkpoints.lora import PARTS, find_lora, merge, parse_lora, read_lora, strength_of
from zeroconv.checkpoints.names import Topology, unet_names
from zeroconv.errors import UserError

LINEAR = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "down_blocks.1.resnets.0.conv1"
TARGETS = ["to_q", "ff.net.2", "conv1", "conv_shortcut"]


def randomised(module: nn.Module) -> dict[str, torch.Tensor]:
    """Numbers that are not zero in every adapter's tensor; → the tensors under peft's names."""
    from peft.utils import get_peft_model_state_dict

    generator = torch.Generator().manual_seed(5)
    for name, value in module.named_parameters():
        if any(word in name for word in ("hada_", "lokr_", "lora_")):
            noise = 0.2 * torch.randn(value.shape, generator=generator)
            value.data = value.data * (1 + noise) if "magnitude" in name else noise
    return {key: value.contiguous() for key, value in get_peft_model_state_dict(module).items()}


def peft_configs() -> dict:
    from peft import LoHaConfig, LoKrConfig, LoraConfig

    some = {"r": 4, "alpha": 6, "target_modules": TARGETS}
    dora = {"r": 4, "lora_alpha": 6, "target_modules": TARGETS, "use_dora": True}
    return {
        "loha": LoHaConfig(**some),
        "loha with cores": LoHaConfig(**some, use_effective_conv2d=True),
        "lokr": LoKrConfig(**some),
        "lokr with cores": LoKrConfig(**some, use_effective_conv2d=True),
        "lokr of four factors": LoKrConfig(
            **{**some, "r": 2}, decompose_both=True, decompose_factor=4
        ),
        "lokr of whole factors": LoKrConfig(**{**some, "r": 64}),
        "dora": LoraConfig(**dora),
    }


@pytest.mark.parametrize("name", peft_configs())
def test_lycoris_of_peft_is_what_peft_merges(tmp_path, name) -> None:
    from peft import get_peft_model

    config = peft_configs()[name]
    model = get_peft_model(tiny_unet(), config)
    state = randomised(model)
    theirs = model.merge_and_unload().state_dict()

    save_file(state, tmp_path / "adapter_model.safetensors")
    saved = {key: value for key, value in config.to_dict().items() if key != "target_modules"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(saved, default=str))
    before = tiny_unet().state_dict()
    merged = merge(before, read_lora(tmp_path), "unet")
    changed = 0
    for key, value in theirs.items():
        torch.testing.assert_close(merged[key], value, rtol=0, atol=1e-5)
        changed += not torch.equal(merged[key], before[key])
    assert changed > 20


# ---------------------------------------------------------------- kohya's and LyCORIS's names


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rebuilt(core: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """core (r, r, k, k), a (r, out), b (r, in), place by place."""
    out = torch.zeros(a.shape[1], b.shape[1], *core.shape[2:])
    for k in range(core.shape[2]):
        for m in range(core.shape[3]):
            out[:, :, k, m] = a.T @ core[:, :, k, m] @ b
    return out


def entries() -> dict[str, tuple[str, dict[str, torch.Tensor], torch.Tensor]]:
    """Name → (module, its tensors, ΔW). The linear layer is 48 × 48, the convolution 32 × 16."""
    alpha, r = torch.tensor(3.0), 4
    lin = [random(*shape, seed=i) for i, shape in enumerate([(48, r), (r, 48), (48, r), (r, 48)])]
    cores = [random(r, r, 3, 3, seed=i) for i in (7, 8)]
    outs, ins = [random(r, 32, seed=i) for i in (1, 2)], [random(r, 16, seed=i) for i in (3, 4)]
    w1, w2 = random(6, 8, seed=1), random(8, 6, seed=2)
    wide = random(8, 4, 3, 3, seed=3)
    mid_up, mid_down = random(32, r, 1, 1), random(r, 16, 1, 1, seed=1)
    square = random(4, 4, seed=4)
    return {
        "loha": (
            LINEAR,
            dict(zip(["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"], lin, strict=True)),
            (lin[0] @ lin[1]) * (lin[2] @ lin[3]) * (3 / r),
        ),
        "loha with cores": (
            CONV,
            {
                "hada_w1_a": outs[0],
                "hada_w1_b": ins[0],
                "hada_t1": cores[0],
                "hada_w2_a": outs[1],
                "hada_w2_b": ins[1],
                "hada_t2": cores[1],
                "alpha": alpha,
            },
            rebuilt(cores[0], outs[0], ins[0]) * rebuilt(cores[1], outs[1], ins[1]) * (3 / r),
        ),
        "lokr of whole factors": (
            LINEAR,
            {"lokr_w1": w1, "lokr_w2": w2},
            torch.kron(w1, w2),  # α is not read: there is no rank
        ),
        "lokr of a small second": (
            LINEAR,
            {"lokr_w1": w1, "lokr_w2_a": random(8, 2), "lokr_w2_b": random(2, 6, seed=9)},
            torch.kron(w1, random(8, 2) @ random(2, 6, seed=9)) * (3 / 2),
        ),
        "lokr of a convolution": (
            CONV,
            {"lokr_w1": square, "lokr_w2": wide},
            torch.kron(square[:, :, None, None], wide),
        ),
        "lokr with a core": (
            CONV,
            {
                "lokr_w1": square,
                "lokr_t2": cores[0],
                "lokr_w2_a": outs[0][:, :8].contiguous(),
                "lokr_w2_b": ins[0][:, :4].contiguous(),
            },
            torch.kron(square[:, :, None, None], rebuilt(cores[0], outs[0][:, :8], ins[0][:, :4]))
            * (3 / r),
        ),
        "lora with a core": (
            CONV,
            {"lora_up.weight": mid_up, "lora_mid.weight": cores[0], "lora_down.weight": mid_down},
            rebuilt(cores[0], mid_up[:, :, 0, 0].T.contiguous(), mid_down[:, :, 0, 0]) * (3 / r),
        ),
        "difference": (LINEAR, {"diff": random(48, 48)}, random(48, 48)),
    }


def written(path, module: str, tensors: dict, prefix: str = "lora_unet_"):
    flat = prefix + module.replace(".", "_")
    state = {f"{flat}.{name}": value.contiguous() for name, value in tensors.items()}
    save_file({f"{flat}.alpha": torch.tensor(3.0), **state}, path)
    return path


@pytest.mark.parametrize("name", entries())
@pytest.mark.parametrize("original", [False, True])
def test_lycoris_of_kohyas_names_is_the_formula(tmp_path, name, original) -> None:
    module, tensors, delta = entries()[name]
    before = tiny_unet().state_dict()
    theirs = module
    if original:
        names = unet_names(Topology.of_diffusers(before))
        owner = next(n for n in names if module == n or module.startswith(f"{n}."))
        theirs = names[owner] + module[len(owner) :]
    lora = read_lora(written(tmp_path / "x.safetensors", theirs, tensors))
    for weight in (1.0, -0.4):
        merged = merge(before, lora, "unet", weight)
        key = f"{module}.weight"
        expected = before[key] + weight * delta.reshape(before[key].shape)
        torch.testing.assert_close(merged[key], expected, rtol=1e-5, atol=1e-5)
        assert sum(not torch.equal(v, before[k]) for k, v in merged.items()) == 1


@pytest.mark.parametrize("module", [LINEAR, CONV])
@pytest.mark.parametrize("outputs", [True, False])
def test_dora_of_lycoris_is_the_formula(tmp_path, module, outputs) -> None:
    """W + s · (m · V / ‖V‖ − W), V = W + ΔW."""
    before = tiny_unet().state_dict()
    weight = before[f"{module}.weight"]
    down = random(4, *weight.shape[1:], seed=1)
    up = random(weight.shape[0], 4, *[1] * (weight.ndim - 2), seed=2)
    new = weight + (up.flatten(1) @ down.flatten(1)).reshape(weight.shape) * (3 / 4)
    axes = [i for i in range(weight.ndim) if i != (0 if outputs else 1)]
    length = new.pow(2).sum(dim=axes, keepdim=True).sqrt()
    magnitude = (1 + random(*length.shape, seed=3).abs()) * length
    tensors = {"lora_up.weight": up, "lora_down.weight": down, "dora_scale": magnitude}
    lora = read_lora(written(tmp_path / "x.safetensors", module, tensors))
    for strength in (1.0, 0.3):
        expected = weight + strength * (magnitude * new / length - weight)
        merged = merge(before, lora, "unet", strength)[f"{module}.weight"]
        torch.testing.assert_close(merged, expected, rtol=1e-5, atol=1e-5)


def test_lycoris_differences_of_norms_and_biases(tmp_path) -> None:
    before = tiny_unet().state_dict()
    module = "mid_block.resnets.0.norm1"
    state = {
        f"lora_unet_{module.replace('.', '_')}.w_norm": random(48),
        f"lora_unet_{module.replace('.', '_')}.b_norm": random(48, seed=1),
        f"lora_unet_{CONV.replace('.', '_')}.diff_b": random(32, seed=2),
    }
    save_file(state, tmp_path / "x.safetensors")
    merged = merge(before, read_lora(tmp_path / "x.safetensors"), "unet", 0.5)
    for key, value in zip(
        (f"{module}.weight", f"{module}.bias", f"{CONV}.bias"), state.values(), strict=True
    ):
        torch.testing.assert_close(merged[key], before[key] + 0.5 * value)
    assert sum(not torch.equal(v, before[k]) for k, v in merged.items()) == 3


DAMAGED = {
    "one half": (LINEAR, {"hada_w1_a": random(48, 4)}, "lacks hada_w1_b"),
    "one core": (
        CONV,
        {
            **{f"hada_w{i}_{x}": random(4, 32) for i in (1, 2) for x in "ab"},
            "hada_t1": random(4, 4, 3, 3),
        },
        "one core of a LoHa",
    ),
    "half a lokr": (
        LINEAR,
        {"lokr_w1": random(6, 8), "lokr_w2_a": random(8, 2)},
        "lacks lokr_w2_b",
    ),
    "another size": (LINEAR, {"lokr_w1": random(6, 8), "lokr_w2": random(8, 8)}, "another size"),
    "no product": (
        LINEAR,
        {"lokr_w1": random(6, 8), "lokr_w2_a": random(8, 2), "lokr_w2_b": random(3, 6)},
        "do not go together",
    ),
    "a magnitude of both": (
        LINEAR,
        {
            "lora_up.weight": random(48, 4),
            "lora_down.weight": random(4, 48),
            "dora_scale": random(48, 48),
        },
        "one number an output or one an input",
    ),
    "a magnitude too long": (
        LINEAR,
        {
            "lora_up.weight": random(48, 4),
            "lora_down.weight": random(4, 48),
            "dora_scale": random(47, 1),
        },
        "another size",
    ),
    "OFT": (LINEAR, {"oft_blocks": random(4, 4, 4)}, "it is OFT, which zeroconv does not merge"),
    "GLoRA": (LINEAR, {"a1.weight": random(4, 4)}, "it is GLoRA"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_lycoris_that_is_damaged_or_not_known_is_one_sentence(tmp_path, name) -> None:
    module, tensors, words = DAMAGED[name]
    with pytest.raises(UserError, match=words) as caught:
        merge(
            tiny_unet().state_dict(),
            read_lora(written(tmp_path / "x.safetensors", module, tensors)),
            "unet",
        )
    assert str(tmp_path / "x.safetensors") in str(caught.value)


# ---------------------------------------------------------------- SDXL, strengths, names


def test_lora_of_sdxl_changes_every_part_at_a_strength_each(tmp_path) -> None:
    base = save_single_file(tmp_path / "xl.safetensors", tiny_backbone_xl_file())
    unet = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    names = unet_names(Topology.of_diffusers(tiny_unet_xl().state_dict()))
    theirs = names["down_blocks.1.attentions.0"] + ".transformer_blocks.0.attn1.to_q"
    text = "text_model.encoder.layers.0.self_attn.q_proj"
    down, up = random(4, 32), random(32, 4, seed=1)
    state = {}
    for flat in (
        f"lora_unet_{theirs}".replace(".", "_"),
        f"lora_te1_{text}".replace(".", "_"),
        f"lora_te2_{text}".replace(".", "_"),
    ):
        state |= {f"{flat}.lora_up.weight": up.clone(), f"{flat}.lora_down.weight": down.clone()}
    file = tmp_path / "style.safetensors"
    save_file(state, file)

    before = load_backbone(base)
    after = load_backbone(base, lora=f"{file}=unet:0.8,text:0.5,te2:-1")
    also = load_backbone(base, lora=(file, {"unet": 0.8, "text": 0.5, "te2": -1.0}))
    for ours, old, same, key, strength in (
        (after.unet, before.unet, also.unet, f"{unet}.weight", 0.8),
        *(
            (*texts, key, strength)
            for texts, key, strength in zip(
                zip(after.text_encoders, before.text_encoders, also.text_encoders, strict=True),
                ("encoder.layers.0.self_attn.q_proj.weight",) * 2,
                (0.5, -1.0),
                strict=True,
            )
        ),
    ):
        keys = [k for k in old.state_dict() if k.endswith(key)]
        assert len(keys) == 1
        expected = old.state_dict()[keys[0]] + strength * (up @ down)
        torch.testing.assert_close(ours.state_dict()[keys[0]], expected, rtol=0, atol=1e-5)
        assert torch.equal(ours.state_dict()[keys[0]], same.state_dict()[keys[0]])


@pytest.mark.parametrize(
    ("text", "strength"),
    [
        ("a.safetensors", 1.0),
        ("a.safetensors:0.8", 0.8),
        ("a.safetensors=0.8", 0.8),
        ("a.safetensors=unet:0.8", {"unet": 0.8}),
        ("a.safetensors=te:0.5", dict.fromkeys(PARTS[1:], 0.5)),
        (
            "a.safetensors=text:0.5,te2:-1",
            {"text_encoder": 0.5, "text_encoder_2": -1.0, "text_encoder_3": 0.5},
        ),
    ],
)
def test_lora_strengths_as_people_write_them(text, strength) -> None:
    assert parse_lora(text) == ("a.safetensors", strength)


@pytest.mark.parametrize(
    "text", ["a=unet:much", "a=unet:", "a=unet:0.8,", "a=unet:0.8,head:1", "a=unet:nan"]
)
def test_lora_strengths_that_make_no_sense_are_one_sentence(text) -> None:
    with pytest.raises(UserError, match="write FILE, FILE:0"):
        parse_lora(text)


def test_lora_strength_of_a_part() -> None:
    assert strength_of(0.3, "unet") == 0.3
    assert strength_of({"text": 0.5}, "text_encoder_2") == 0.5
    assert strength_of({"text": 0.5}, "unet") == 1.0
    with pytest.raises(UserError, match="names the part 'head'"):
        strength_of({"head": 1.0}, "unet")


def test_lora_by_its_name_in_folders(tmp_path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (
        first / "people" / "Ink v1.2.safetensors",
        first / "style.safetensors",
        first / "old" / "style.safetensors",
        second / "style.safetensors",
        second / "twice.pt",
        second / "twice.safetensors",
        tmp_path / "outside.safetensors",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    folders = [first, second]
    assert find_lora("style", folders) == first / "style.safetensors"
    assert find_lora("old/style", folders) == first / "old" / "style.safetensors"
    assert find_lora("Ink v1.2", folders) == first / "people" / "Ink v1.2.safetensors"
    assert find_lora("ink V1.2", folders) == first / "people" / "Ink v1.2.safetensors"
    assert find_lora("twice.pt", folders) == second / "twice.pt"
    for name, words in (
        ("twice", "has several files"),
        ("stile", "there is style"),
        ("nothing-like-it", "check its name"),
        ("../outside", "no name of a LoRA"),
        (str(tmp_path / "outside.safetensors"), "no name of a LoRA"),
        ("", "no name of a LoRA"),
    ):
        with pytest.raises(UserError, match=words):
            find_lora(name, folders)
