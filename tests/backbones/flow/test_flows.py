"""FLUX.1, Qwen-Image and Z-Image through the contract: outputs and residuals are diffusers' own."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers import flow_bases, tiny_flow
from tests.helpers.tiny_flow import relative
from zeroconv.backbones import TextStates, is_split, load_backbone
from zeroconv.backbones.flow.packing import pack, positions, unpack
from zeroconv.control.families import control_class, new_control
from zeroconv.errors import UserError
from zeroconv.prompts import parse

PROMPTS = ["a red ball", "two green cubes and a hat"]


@pytest.fixture(scope="module")
def folders() -> dict[str, Path]:
    return flow_bases.folders()


@pytest.fixture(scope="module")
def bases() -> dict[str, Any]:
    return flow_bases.bases()


def their_flux(base: Any, network: Any, z: Tensor, hint: Tensor, t: Tensor, text: Any) -> Any:
    """Residuals and output as the pipeline calls them."""
    asked = {
        "hidden_states": pack(z),
        "timestep": t / 1000,
        "encoder_hidden_states": text.hidden,
        "pooled_projections": text.pooled,
        "img_ids": positions((8, 12), z.device),
        "txt_ids": torch.zeros(text.hidden.shape[1], 3),
        "return_dict": False,
    }
    doubles, singles = network(controlnet_cond=pack(hint), **asked)
    output = base.transformer(
        controlnet_block_samples=doubles, controlnet_single_block_samples=singles, **asked
    )[0]
    return [*(doubles or ()), *(singles or ())], unpack(output, (8, 12))


@pytest.mark.parametrize(("doubles", "singles"), [(1, 0), (2, 0), (3, 5), (2, 3), (0, 2)])
@torch.no_grad()
def test_flux_residuals_and_output_equal_diffusers(bases, doubles: int, singles: int) -> None:
    """Also for numbers of blocks that do not divide the base's 3 and 5."""
    base, network = bases["flux"], tiny_flow.flux_control(doubles, singles)
    z, hint, t = tiny_flow.inputs()
    text = base.embed_text(PROMPTS)
    wanted, expected = their_flux(base, network, z, hint, t, text)
    control = control_class(base)(copy.deepcopy(network), base)
    ours = control(z, hint, t, text)
    assert len(ours) == len(control.connections) == doubles + singles
    assert all(relative(a, b) < 1e-5 for a, b in zip(ours, wanted, strict=True))
    output = control.predict(base, z, hint, t, text)
    assert relative(output, expected) < 1e-5
    assert relative(output, base.predict(z, t, text)) > 0.01


@torch.no_grad()
def test_chroma_output_equals_diffusers_and_its_control_runs_the_base_s_blocks(bases) -> None:
    """With connections that hand through, its residuals are the tokens behind the base's blocks."""
    base = bases["chroma"]
    z, hint, t = tiny_flow.inputs()
    text = base.embed_text(PROMPTS)
    assert set(text.pooled.flatten().tolist()) == {0.0, 1.0}
    control = new_control(base, blocks=3)
    for layer in control.network.controlnet_blocks:
        torch.nn.init.eye_(layer.weight)
    seen: list[Tensor] = []
    blocks = base.transformer.transformer_blocks
    hooks = [b.register_forward_hook(lambda b, args, out: seen.append(out[1])) for b in blocks]
    base.predict(z, t, text)
    for hook in hooks:
        hook.remove()
    ours = control(z, hint, t, text)
    assert all(relative(a, b) < 1e-5 for a, b in zip(ours, seen, strict=True))

    tiny_flow.randomised(control.network)
    asked = {
        "hidden_states": pack(z),
        "timestep": t / 1000,
        "encoder_hidden_states": text.hidden,
        "attention_mask": torch.cat([text.pooled, torch.ones(2, 24)], dim=1),
        "img_ids": positions((8, 12), z.device),
        "txt_ids": torch.zeros(text.hidden.shape[1], 3),
        "return_dict": False,
    }
    residuals = control(z, hint, t, text)
    expected = base.transformer(controlnet_block_samples=residuals, **asked)[0]
    output = control.predict(base, z, hint, t, text)
    assert relative(output, unpack(expected, (8, 12))) < 1e-5
    assert relative(output, base.predict(z, t, text)) > 0.01


@pytest.mark.parametrize("blocks", [1, 2, 3, 5])
@torch.no_grad()
def test_qwen_residuals_and_output_equal_diffusers(bases, blocks: int) -> None:
    base, network = bases["qwen"], tiny_flow.qwen_control(blocks)
    z, hint, t = tiny_flow.inputs()
    text = base.embed_text(PROMPTS)
    asked = {
        "hidden_states": pack(z),
        "timestep": t / 1000,
        "encoder_hidden_states": text.hidden,
        "encoder_hidden_states_mask": text.mask.long(),
        "img_shapes": [(1, 4, 6)] * 2,
        "return_dict": False,
    }
    wanted = network(controlnet_cond=pack(hint), **asked)
    expected = unpack(base.transformer(controlnet_block_samples=wanted, **asked)[0], (8, 12))
    control = control_class(base)(copy.deepcopy(network), base)
    assert all(
        relative(a, b) < 1e-5 for a, b in zip(control(z, hint, t, text), wanted, strict=True)
    )
    output = control.predict(base, z, hint, t, text)
    assert relative(output, expected) < 1e-5
    assert relative(output, base.predict(z, t, text)) > 0.01


@pytest.mark.parametrize("refiner", [None, "control_layers", "control_noise_refiner"])
@torch.no_grad()
def test_zimage_residuals_and_output_equal_diffusers(bases, refiner: str | None) -> None:
    from diffusers import ZImageControlNetModel

    base = bases["zimage"]
    network = tiny_flow.zimage_control(add_control_noise_refiner=refiner)
    z, hint, t = tiny_flow.inputs()
    text = base.embed_text(PROMPTS)
    captions = [row[mask] for row, mask in zip(text.hidden, text.mask, strict=True)]
    asked: list[Any] = [list(z[:, :, None]), (1000 - t) / 1000, captions]
    control = control_class(base)(copy.deepcopy(network), base)
    ours = control(z, hint, t, text)
    whole = ZImageControlNetModel.from_transformer(network, base.transformer)
    wanted = whole(*asked, list(hint[:, :, None]))
    assert all(relative(a, wanted[place]) < 1e-5 for a, place in zip(ours, (0, 2), strict=True))
    made = base.transformer(*asked, controlnet_block_samples=wanted, return_dict=False)[0]
    output = control.predict(base, z, hint, t, text)
    assert relative(output, -torch.stack(made)[:, :, 0]) < 1e-5
    assert relative(output, base.predict(z, t, text)) > 0.01


@pytest.mark.parametrize("name", ["qwen", "zimage"])
@torch.no_grad()
def test_flow_prompts_do_not_depend_on_those_beside_them(bases, name: str) -> None:
    """A shorter prompt is filled up, and what fills it up changes nothing."""
    base = bases[name]
    z, _, t = tiny_flow.inputs()
    alone, both = base.embed_text(PROMPTS[:1]), base.embed_text(PROMPTS)
    assert both.mask is not None and not bool(both.mask.all())
    apart = base.predict(z[:1], t[:1], alone)
    assert torch.allclose(base.predict(z, t, both)[:1], apart, atol=1e-4)
    joined = TextStates.cat([alone, base.embed_text(PROMPTS[1:])])
    assert torch.allclose(base.predict(z, t, joined), base.predict(z, t, both), atol=1e-4)


def test_flow_residuals_of_shorter_sequences_are_filled_up(bases) -> None:
    """Where one half of guidance is controlled, its caption may be the shorter one."""
    base = bases["zimage"]
    z, hint, t = tiny_flow.inputs(n=1)
    control = control_class(base)(tiny_flow.zimage_control(), base)
    short, long = (base.embed_text([text]) for text in ("a", "a red ball " * 12))
    residuals = base.spread(control(z, hint, t, short), control.spread)
    padded = [None if r is None else torch.cat([torch.zeros_like(r), r]) for r in residuals]
    text = TextStates.cat([long, short])
    both = base.predict(torch.cat([z, z]), t.repeat(2), text, padded)
    assert torch.allclose(both[:1], base.predict(z, t, long), atol=1e-4)
    alone = control.predict(base, z, hint, t, short)
    assert torch.allclose(both[1:], alone, atol=1e-4)


@torch.no_grad()
def test_flux_reads_its_guidance(folders, tmp_path: Path) -> None:
    """FLUX.1 dev: 3.5 unless the text states say otherwise."""
    base: Any = load_backbone(str(tiny_flow.write_flux(tmp_path / "dev", guidance_embeds=True)))
    assert base.reads_guidance
    base.defaults = type(base.defaults)(cfg=3.5)
    z, _, t = tiny_flow.inputs()
    text = base.embed_text(PROMPTS)
    plain = base.predict(z, t, text)
    text.guidance = torch.tensor([3.5, 3.5])
    assert torch.equal(base.predict(z, t, text), plain)
    text.guidance = torch.tensor([1.0, 7.0])
    assert (base.predict(z, t, text) - plain).abs().amax((1, 2, 3)).min() > 1e-3


def test_flows_are_no_unets_and_say_where_residuals_go(bases) -> None:
    wanted = {"sd3": 4, "flux": 8, "chroma": 8, "qwen": 5, "zimage": 4}
    for name, base in bases.items():
        assert len(base.connections) == wanted[name] and not is_split(base)
        assert {c.kind for c in base.connections} == {"tokens"}
    assert [c.name for c in bases["flux"].connections][2:4] == ["double.2", "single.0"]
    z, _, t = tiny_flow.inputs()
    for name, base in bases.items():
        with pytest.raises(UserError, match="sides divide by 8"):
            base.predict(z[..., :-1], t, base.embed_text(PROMPTS))
        if name != "zimage":
            with pytest.raises(ValueError):
                base.predict(z, t, base.embed_text(PROMPTS), [None] * 99)


def test_flow_prompts_are_read_without_weights(bases) -> None:
    with pytest.warns(UserWarning, match="reads prompts without weights"):
        weighted = bases["flux"].embed_text([parse("a (red:1.5) ball")])
    assert torch.equal(weighted.hidden, bases["flux"].embed_text(["a red ball"]).hidden)
    with pytest.warns(UserWarning, match="T5 reads 16 tokens"):
        bases["flux"].embed_text(["a red ball on a blue floor " * 4])


def test_sd3_reads_prompts_without_t5(tmp_path: Path) -> None:
    """Its states are zeros then."""
    base = load_backbone(str(tiny_flow.write_sd3(tmp_path / "sd3", t5=False)))
    text = base.embed_text(["a red ball"])
    assert text.hidden.shape == (1, 48 + 256, 32) and not text.hidden[:, 48:].any()


def test_load_backbone_refuses_what_flows_have_not(folders, tmp_path: Path) -> None:
    flux = folders["flux"]
    with pytest.raises(UserError, match="leave prediction_type out"):
        load_backbone(flux, prediction_type="epsilon")
    part = tmp_path / "part"
    shutil.copytree(flux, part)
    shutil.rmtree(part / "tokenizer_2")
    with pytest.raises(UserError, match="it lacks tokenizer_2/"):
        load_backbone(part)
    config = json.loads((part / "transformer" / "config.json").read_text())
    config["_class_name"] = "SanaTransformer2DModel"
    (part / "transformer" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="SanaTransformer2DModel, which zeroconv does not run"):
        load_backbone(part)


def test_load_backbone_refuses_a_text_encoder_of_another_kind(folders, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(folders["zimage"], wrong)
    shutil.rmtree(wrong / "text_encoder")
    shutil.copytree(folders["qwen"] / "text_encoder", wrong / "text_encoder")
    with pytest.raises(UserError, match="is a qwen2_5_vl, but this base reads"):
        load_backbone(wrong)


@torch.no_grad()
def test_flows_in_int8_are_near_what_they_are(folders) -> None:
    z, _, t = tiny_flow.inputs()
    for name in ("flux", "zimage"):
        plain, held = (load_backbone(str(folders[name]), quantise=bits) for bits in (None, "int8"))
        text = plain.embed_text(PROMPTS)
        assert relative(held.predict(z, t, text), plain.predict(z, t, text)) < 0.3
        assert held.dtype == torch.float32


@torch.no_grad()
def test_qwen_latents_are_those_of_its_pipeline(bases) -> None:
    base = bases["qwen"]
    images = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    z = base.latents_from_moments(base.encode_image(images * 2 - 1), sample=False)
    config = base.vae.config
    mean = base.vae.encode((images * 2 - 1)[:, :, None]).latent_dist.mode()[:, :, 0]
    numbers = (torch.tensor(x)[:, None, None] for x in (config.latents_mean, config.latents_std))
    centre, spread = numbers
    assert torch.allclose(z, (mean - centre) / spread, atol=1e-5)
    back = base.vae.decode((z * spread + centre)[:, :, None]).sample[:, :, 0]
    assert torch.allclose(base.decode_latents(z), (back / 2 + 0.5).clamp(0, 1), atol=1e-5)


@pytest.mark.parametrize("family", ["flux", "zimage", "qwen"])
def test_flow_pictures_have_the_size_that_the_vae_was_trained_at(bases, family: str) -> None:
    base = bases[family]
    sample = base._vae.config.get("sample_size")
    assert base.default_size == (128 * base.latent_scale if sample is None else sample)
    assert sample == (None if family == "qwen" else 16)
