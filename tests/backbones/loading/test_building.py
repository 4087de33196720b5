"""Modules are filled tensor by tensor: what that takes of memory, and that the numbers stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers.tiny import tiny_backbone
from zeroconv.backbones.loading.building import build_unet, channels_last_, empty_unet, fill
from zeroconv.checkpoints.lora import Lora, LowRank, Merged
from zeroconv.layers.fake import held_by, size_of
from zeroconv.layers.live_bytes import LiveBytes
from zeroconv.layers.offload import Spill


@pytest.fixture(scope="module")
def unet():
    return tiny_backbone().unet


def halves(unet) -> dict[str, torch.Tensor]:
    return {name: value.half() for name, value in unet.state_dict().items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("keep", [dict, Spill().take])
def test_filling_holds_one_copy_of_the_weights_at_most(unet, dtype, keep) -> None:
    """Beside it two tensors: one as it is converted and one as it is laid out."""
    state = halves(unet)
    most = max(size_of(value.to(dtype)) for value in state.values())
    built = empty_unet(dict(unet.config), "a test")
    with LiveBytes() as live:
        fill(built, state, "a test", dtype, keep)
    copies = held_by(built) if keep is dict else 0
    assert copies <= live.most <= copies + 3 * most
    assert held_by(built) > 20 * most


@pytest.mark.parametrize("keep", [dict, Spill().take])
def test_filling_gives_the_numbers_and_layout_of_the_whole_module_converted(unet, keep) -> None:
    state = halves(unet)
    built = build_unet(dict(unet.config), state, "a test", torch.float32, keep)
    expected = empty_unet(dict(unet.config), "a test").to_empty(device="cpu")
    expected.load_state_dict({name: value.float() for name, value in state.items()})
    channels_last_(expected)
    for (name, a), b in zip(expected.named_parameters(), built.parameters(), strict=True):
        assert torch.equal(a, b) and a.stride() == b.stride(), name


def test_filling_with_loras_holds_no_changed_weights_in_float32(unet) -> None:
    """Two LoRAs of all attentions, merged into a base that is read in bfloat16."""
    state = halves(unet)
    lora = Lora({"unet": {name: low_rank(state, name) for name in attended(state)}}, Path("a LoRA"))
    merged = Merged(Merged(state, lora, "unet", 0.5), lora, "unet", -0.25)
    built = empty_unet(dict(unet.config), "a test")
    with LiveBytes() as live:
        fill(built, merged, "a test", torch.bfloat16)
    most = max(4 * value.numel() for value in state.values())
    assert live.most <= held_by(built) + 6 * most
    name = attended(state)[0]
    delta = 0.25 * lora.parts["unet"][name].delta(state[f"{name}.weight"])
    expected = (state[f"{name}.weight"].float() + delta).bfloat16()
    assert torch.allclose(built.state_dict()[f"{name}.weight"], expected, rtol=1e-2, atol=1e-3)


def attended(state: dict[str, torch.Tensor]) -> list[str]:
    names = (key.removesuffix(".weight") for key in state)
    return [name for name in names if name.endswith((".to_q", ".to_k", ".to_v", ".ff.net.2"))]


def low_rank(state: dict[str, torch.Tensor], name: str) -> LowRank:
    high, wide = state[f"{name}.weight"].shape
    return LowRank(torch.ones(2, wide), torch.full((high, 2), 0.1))
