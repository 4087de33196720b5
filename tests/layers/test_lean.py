"""Lean blocks compute what diffusers' blocks compute, and what they do not know stays as it is."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from tests.helpers.tiny import randomise_, tiny_backbone
from zeroconv.layers.attention import Change, Switch, attached
from zeroconv.layers.lean import LeanResnet, LeanTransformer, lean_forward
from zeroconv.layers.sampling import sampling_layers

LAST = {"memory_format": torch.channels_last}


def resnet(**more) -> ResnetBlock2D:
    options = {"in_channels": 12, "out_channels": 20, "temb_channels": 6, "groups": 4, **more}
    return randomise_(ResnetBlock2D(**options)).eval().to(**LAST)


def transformer(**more) -> Transformer2DModel:
    options = {"in_channels": 12, "num_attention_heads": 2, "attention_head_dim": 6}
    options |= {"norm_num_groups": 4, "cross_attention_dim": 10, "num_layers": 2, **more}
    return randomise_(Transformer2DModel(**options)).eval().to(**LAST)


def picture(side: int = 8, n: int = 2) -> Tensor:
    return torch.randn(n, 12, side, side).contiguous(**LAST)


def both(block: nn.Module, *given, **more) -> tuple[Tensor, Tensor]:
    """What the block gives, and its lean forward pass."""
    with torch.no_grad():
        plain = block(*given, **more)
        with sampling_layers(block):
            assert isinstance(vars(block).get("forward"), LeanResnet | LeanTransformer)
            lean = block(*given, **more)
    assert "forward" not in vars(block)
    if isinstance(plain, tuple):
        (plain,), (lean,) = plain, lean
    return plain, lean


@pytest.mark.parametrize("side", [1, 2, 4, 8, 16])  # gathered patches, and convolutions
@pytest.mark.parametrize(
    "options",
    [{}, {"out_channels": 12}, {"temb_channels": None}, {"output_scale_factor": 2.0}],
    ids=["shortcut", "as wide", "no time", "scaled"],
)
def test_a_lean_residual_block_computes_what_diffusers_block_does(side, options):
    block, x = resnet(**options), picture(side)
    before = x.clone()
    plain, lean = both(block, x, None if block.time_emb_proj is None else torch.randn(2, 6))
    torch.testing.assert_close(lean, plain, atol=2e-5, rtol=1e-5)
    assert torch.equal(x, before), "the input stays: others read it too"
    assert lean.is_contiguous(**LAST)


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("side", [1, 4, 8])
def test_a_lean_transformer_computes_what_diffusers_transformer_does(side, linear):
    model, x, text = transformer(use_linear_projection=linear), picture(side), torch.randn(2, 5, 10)
    before = x.clone()
    plain, lean = both(model, x, encoder_hidden_states=text, return_dict=False)
    torch.testing.assert_close(lean, plain, atol=2e-5, rtol=1e-5)
    assert torch.equal(x, before)


@pytest.mark.parametrize("side", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "make",
    [resnet, lambda: resnet(out_channels=12), transformer,
     lambda: transformer(use_linear_projection=True)],
)  # fmt: skip
def test_a_lean_block_differs_by_no_bit_from_one_that_is_hooked(make, side):
    """As with `--offload`, whose hooks keep blocks from being lean. Layouts agree too, for what
    follows is summed by them.
    """
    block, x = make(), picture(side)
    is_resnet = isinstance(block, ResnetBlock2D)
    given = (x, torch.randn(2, 6)) if is_resnet else (x, torch.randn(2, 5, 10))
    more = {} if is_resnet else {"return_dict": False}
    with torch.no_grad():
        with sampling_layers(block):
            lean = block(*given, **more)
        block.register_forward_pre_hook(lambda *_: None)
        with sampling_layers(block):
            assert not isinstance(vars(block).get("forward"), LeanResnet | LeanTransformer)
            hooked = block(*given, **more)
    lean, hooked = (lean, hooked) if is_resnet else (lean[0], hooked[0])
    assert torch.equal(lean, hooked) and lean.stride() == hooked.stride()


def test_a_lean_transformer_reads_each_text():
    model, x = transformer(), picture()
    texts = [torch.randn(2, 5, 10) for _ in range(5)]
    with torch.no_grad():
        expected = [model(x, text, return_dict=False)[0] for text in texts]
        with sampling_layers(model):
            for _ in range(2):
                for text, plain in zip(texts, expected, strict=True):
                    for given in (text, text.clone()):
                        lean = model(x, given, return_dict=False)[0]
                        torch.testing.assert_close(lean, plain, atol=2e-5, rtol=1e-5)


def test_a_changed_attention_acts_in_a_lean_transformer():
    class Doubled(Change):
        def after(self, call, out):
            return 2 * out

    model, x, text = transformer(), picture(), torch.randn(2, 5, 10)
    changes = {f"transformer_blocks.{i}.attn2": Doubled(Switch()) for i in range(2)}
    with torch.no_grad():
        with attached(model, [changes]):
            expected = model(x, text, return_dict=False)[0]
        with sampling_layers(model), attached(model, [changes]):
            acting = model(x, text, return_dict=False)[0]
        with attached(model, [changes]), sampling_layers(model):
            first = model(x, text, return_dict=False)[0]
    torch.testing.assert_close(acting, expected, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(first, expected, atol=2e-5, rtol=1e-5)
    assert not torch.allclose(expected, model(x, text, return_dict=False)[0], atol=1e-2)


def other_linear(block):
    class Wrapped(nn.Linear):
        pass

    block.time_emb_proj.__class__ = Wrapped


def other_processor(model):
    model.transformer_blocks[0].attn1.set_processor(AttnProcessor())


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (resnet, lambda b: b.register_forward_hook(lambda *_: None)),
        (resnet, lambda b: b.conv1.register_forward_pre_hook(lambda *_: None)),
        (resnet, lambda b: setattr(b.conv2, "forward", b.conv2.forward)),
        (resnet, lambda b: setattr(b, "nonlinearity", nn.GELU())),
        (resnet, lambda b: b.norm1.bfloat16()),
        (resnet, lambda b: setattr(b, "skip_time_act", True)),
        (resnet, other_linear),
        (transformer, other_processor),
        (transformer, lambda m: m.transformer_blocks[1].set_chunk_feed_forward(2)),
        (transformer, lambda m: setattr(m.proj_in, "forward", m.proj_in.forward)),
        (transformer, lambda m: m.transformer_blocks[0].attn2.to_k.double()),
    ],
)
def test_a_block_that_is_not_as_it_is_known_has_no_lean_forward(make, change):
    block = make()
    assert lean_forward(block) is not None
    change(block)
    assert lean_forward(block) is None


@pytest.mark.parametrize(
    "options",
    [{"up": True}, {"down": True}, {"time_embedding_norm": "scale_shift"}],
    ids=str,
)
def test_residual_blocks_of_other_kinds_have_no_lean_forward(options):
    assert lean_forward(resnet(**options)) is None


def test_lean_blocks_leave_what_they_do_not_compute_to_diffusers(monkeypatch):
    block, model, text = resnet(), transformer(), torch.randn(2, 5, 10)
    temb, x = torch.randn(2, 6), picture()
    mask = torch.zeros(2, 1, 5)
    with torch.no_grad():
        plain = model(x, text, encoder_attention_mask=mask, return_dict=False)[0]
    with sampling_layers(block, model):
        out = block(x, temb)  # with gradients
        assert out.requires_grad
        with torch.no_grad():
            first = block(x.contiguous(), temb)  # channels first
            torch.testing.assert_close(first, out.detach(), atol=2e-5, rtol=1e-5)
            assert model(x, text).sample.shape == x.shape
            masked = model(x, text, encoder_attention_mask=mask, return_dict=False)[0]
    torch.testing.assert_close(masked, plain, atol=2e-5, rtol=1e-5)


def test_the_blocks_of_a_stable_diffusion_unet_and_vae_are_known():
    """Another version of diffusers may change them; then only the time is lost."""
    backbone = tiny_backbone()
    for module in (backbone.unet, backbone.vae):
        module.to(**LAST)
    kinds = (ResnetBlock2D, Transformer2DModel)
    for part in (backbone.unet, backbone.vae.decoder):
        blocks = [m for m in part.modules() if isinstance(m, kinds)]
        assert blocks and all(lean_forward(block) is not None for block in blocks)


def test_a_vae_decodes_the_same_with_lean_blocks():
    backbone = tiny_backbone()
    backbone.vae.to(**LAST)
    z = torch.randn(1, backbone.latent_channels, 4, 4)
    with torch.no_grad():
        plain = backbone.vae.decode(z / backbone.vae.config.scaling_factor).sample
    pixels = backbone.decode_latents(z)
    torch.testing.assert_close(pixels, (plain / 2 + 0.5).clamp(0, 1), atol=2e-5, rtol=0)
