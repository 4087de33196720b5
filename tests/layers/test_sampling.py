"""Sampling computes less: the text once a picture, group norms the faster way; and nothing else
changes.
"""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import Attention
from PIL import Image
from torch import Tensor, nn

from tests.helpers.tiny import randomise_, tiny_backbone
from zeroconv.backbones.loading.building import channels_last_
from zeroconv.control import ControlNet
from zeroconv.generation import Control, generate, sampling
from zeroconv.layers import norms as norms_file
from zeroconv.layers.sampling import sampling_layers

STEPS = 4


def projections(*modules: nn.Module) -> list[nn.Module]:
    attentions = [
        m
        for module in modules
        for m in module.modules()
        if isinstance(m, Attention) and m.is_cross_attention
    ]
    return [layer for attention in attentions for layer in (attention.to_k, attention.to_v)]


@pytest.mark.parametrize("guidance", ["both", "cond", "guess"])
@pytest.mark.parametrize("prompt", ["a red ball", ""])
def test_pictures_stay_and_the_text_is_projected_once(
    guidance: str, prompt: str, monkeypatch
) -> None:
    backbone = tiny_backbone()
    net = channels_last_(randomise_(ControlNet.from_backbone(backbone)))
    channels_last_(backbone.unet)
    monkeypatch.setattr(norms_file, "LEAST", 1)
    monkeypatch.setattr(norms_file, "VECTOR", 1000)
    norms, addcmul = [], torch.addcmul
    monkeypatch.setattr(torch, "addcmul", lambda *w, **more: norms.append(w) or addcmul(*w, **more))
    control = Control(net, Image.new("RGB", (64, 64), "white"))
    layers, calls = projections(backbone.unet, net), list[Tensor]()
    assert layers
    plain_linear = nn.functional.linear

    def counted(x, weight, bias=None):
        if any(weight is layer.weight for layer in layers):
            calls.append(weight)
        return plain_linear(x, weight, bias)

    monkeypatch.setattr(nn.functional, "linear", counted)
    options = {
        "guidance": guidance,
        "cfg": 4.0,
        "steps": STEPS,
        "seed": 3,
        "count": 2,
        "output": "tensor",
    }
    made = generate(backbone, prompt, [control], **options)  # type: ignore[arg-type]
    once = len(calls)
    assert once == len(layers)  # of one batch; both halves of guidance go together
    assert norms  # the faster way was taken
    assert not any("forward" in vars(layer) for layer in layers)
    calls.clear()
    monkeypatch.setattr(sampling, "sampling_layers", lambda *modules: sampling.nullcontext())
    again = generate(backbone, prompt, [control], **options)  # type: ignore[arg-type]
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(made, again, strict=True))
    assert len(calls) == STEPS * once


def test_another_tensor_is_another_text() -> None:
    attention = Attention(query_dim=8, cross_attention_dim=6, heads=2, dim_head=4)
    x, texts = torch.randn(1, 5, 8), [torch.randn(1, 3, 6) for _ in range(5)]
    plain = [attention(x, text) for text in texts]
    with torch.no_grad(), sampling_layers(attention):
        for _ in range(2):
            for text, expected in zip(texts, plain, strict=True):
                assert torch.equal(attention(x, text), expected)
                assert torch.equal(attention(x, text.clone()), expected)


def test_self_attention_and_replaced_layers_are_left() -> None:
    self_attention, offloaded = (
        Attention(query_dim=8, heads=2, dim_head=4),
        Attention(8, 6, 2, dim_head=4),
    )
    offloaded.to_k.forward = hook = offloaded.to_k.forward
    with sampling_layers(self_attention, offloaded):
        assert "forward" not in vars(self_attention.to_k)
        assert offloaded.to_k.forward is hook
        assert "forward" in vars(offloaded.to_v)
    assert offloaded.to_k.forward is hook and "forward" not in vars(offloaded.to_v)


def test_an_error_inside_leaves_nothing_behind() -> None:
    attention = Attention(8, 6, 2, dim_head=4)
    with pytest.raises(RuntimeError, match="stop"), sampling_layers(attention):
        raise RuntimeError("stop")
    assert "forward" not in vars(attention.to_k)


@pytest.mark.parametrize("shape", [(2, 20, 16, 4), (3, 80, 16, 16), (1, 36, 9, 8), (2, 20, 4, 4)])
def test_group_norms_agree_with_torchs(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = nn.GroupNorm(4, shape[1], eps=1e-5)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    for mean in (0.0, 30.0):  # the second loses digits, with torch as well
        x = (torch.randn(shape) + mean).contiguous(memory_format=torch.channels_last)
        expected = layer.double()(x.double())
        layer.float()
        with torch.no_grad(), sampling_layers(layer):
            fast = layer(x)
        assert "forward" not in vars(layer)
        assert (fast.double() - expected).abs().max() < (3e-3 if mean else 1e-5)
        assert fast.stride() == layer(x).stride()


def test_group_norms_of_other_kinds_are_torchs(monkeypatch) -> None:
    wide, narrow, seen = nn.GroupNorm(2, 64), nn.GroupNorm(4, 12), []
    plain = nn.GroupNorm.forward
    monkeypatch.setattr(nn.GroupNorm, "forward", lambda layer, x: seen.append(x) or plain(layer, x))
    with torch.no_grad(), sampling_layers(wide, narrow):
        assert "forward" not in vars(wide)
        layout = {"memory_format": torch.channels_last}
        narrow(torch.randn(1, 12, 8, 8))  # channels first
        narrow(torch.randn(2, 12))
        narrow(torch.randn(1, 12, 4, 4).contiguous(**layout))
        narrow.bfloat16()(torch.randn(1, 12, 8, 8).bfloat16().contiguous(**layout))
        assert len(seen) == 4
        narrow.float()(torch.randn(1, 12, 8, 8).contiguous(**layout))
    assert len(seen) == 4
