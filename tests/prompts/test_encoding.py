"""Text states of weights, chunks and embeddings, against the encoder run by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from tests.helpers.tiny import (
    TEXT_LENGTH,
    TEXT_WIDTH,
    tiny_backbone,
    tiny_backbone_xl,
    tiny_text,
    tiny_unet_xl,
)
from zeroconv.backbones import UNetBackbone
from zeroconv.backbones.text import TextOptions, chunk_counts
from zeroconv.errors import UserError
from zeroconv.prompts import parse, plain
from zeroconv.prompts.embeddings import Embedding, embeddings_from

ROOM = TEXT_LENGTH - 2
BACKBONE = tiny_backbone()
LONG = "a long sentence, of more letters than one window takes"


@pytest.fixture(scope="module")
def xl():
    return tiny_backbone_xl()


def by_hand(text: str, weights: list[float] | None = None) -> Tensor:
    """States (L, D) of one chunk: the encoder's, times weights, the mean restored."""
    tokens = BACKBONE.tokenizers[0](
        [text], padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt"
    )
    with torch.no_grad():
        states = BACKBONE.text_encoders[0](tokens.input_ids).last_hidden_state[0]
    if weights is None:
        return states
    full = torch.tensor([1.0, *weights, *[1.0] * (TEXT_LENGTH - 1 - len(weights))])
    changed = states * full[:, None]
    return changed * (states.mean() / changed.mean())


def test_weighted_states_are_a1111s() -> None:
    states = BACKBONE.embed_text([parse("ab (cd:1.4) [e]")])
    expected = by_hand("ab cd e", [1, 1, 1.4, 1.4, 1 / 1.1])
    assert torch.allclose(states.hidden[0], expected, atol=1e-5)
    assert not torch.allclose(states.hidden[0], by_hand("ab cd e"), atol=1e-2)
    assert states.hidden.mean() == pytest.approx(float(by_hand("ab cd e").mean()), abs=1e-5)


def test_weighted_states_do_not_depend_on_the_batch() -> None:
    alone = BACKBONE.embed_text([parse("(a:2)")]).hidden[0]
    beside = BACKBONE.embed_text([parse("b"), parse("(a:2)"), parse("(c:0.1)")]).hidden[1]
    assert torch.allclose(alone, beside, atol=1e-6)


def test_weights_of_one_change_no_bit() -> None:
    plain_states = BACKBONE.embed_text(["ab cd"]).hidden
    assert torch.equal(BACKBONE.embed_text([parse("ab (cd:1)")]).hidden, plain_states)


def test_chunks_are_encoded_each_alone() -> None:
    states = BACKBONE.embed_text([parse("ab BREAK (c:2)")])
    assert states.hidden.shape == (1, 2 * TEXT_LENGTH, TEXT_WIDTH)
    first, second = states.hidden[0].chunk(2)
    assert torch.allclose(first, by_hand("ab"), atol=1e-5)
    assert torch.allclose(second, by_hand("c", [2.0]), atol=1e-5)  # its own mean


def test_shorter_prompts_are_filled_up_with_the_empty_chunk() -> None:
    states = BACKBONE.embed_text(["ab", LONG])
    count = chunk_counts(BACKBONE, [LONG])[0]
    assert count == 4 and chunk_counts(BACKBONE, ["ab", LONG]) == [1, 4]
    parts = states.hidden[0].chunk(count)
    assert torch.allclose(parts[0], by_hand("ab"), atol=1e-5)
    for part in parts[1:]:
        assert torch.allclose(part, by_hand(""), atol=1e-5)
    assert torch.equal(BACKBONE.embed_text(["ab"], chunks=4).hidden[0], states.hidden[0])


def test_many_chunks_come_back_in_order() -> None:
    texts = ["b" * (ROOM * (1 + i % 3)) for i in range(50)]  # more rows than one pass takes
    states = BACKBONE.embed_text(texts)
    for i in (0, 1, 2, 48, 49):
        alone = BACKBONE.embed_text([texts[i]], chunks=3).hidden[0]
        assert torch.allclose(states.hidden[i], alone, atol=1e-5)


def test_sdxl_summary_is_the_first_chunks(xl) -> None:
    states = xl.embed_text([parse("ab BREAK cd"), parse("e")])
    alone = xl.embed_text(["ab", "e"])
    assert states.hidden.shape == (2, 2 * TEXT_LENGTH, 2 * TEXT_WIDTH)
    assert torch.allclose(states.pooled, alone.pooled, atol=1e-5)


def test_sdxl_second_prompt_is_read_by_the_second_encoder(xl) -> None:
    both = xl.embed_text(["ab"], prompts_2=[LONG])
    first = xl.embed_text(["ab"], chunks=4)
    second = xl.embed_text([LONG])
    assert torch.allclose(both.hidden[..., :TEXT_WIDTH], first.hidden[..., :TEXT_WIDTH], atol=1e-5)
    assert torch.allclose(both.hidden[..., TEXT_WIDTH:], second.hidden[..., TEXT_WIDTH:], atol=1e-5)
    assert torch.allclose(both.pooled, second.pooled, atol=1e-5)


@pytest.fixture(scope="module")
def deep() -> list[UNetBackbone]:
    """A Stable Diffusion and an SDXL whose text encoders have four layers."""
    kind, first, second = (
        tiny_text(projection=p, seed=s, num_hidden_layers=4)
        for p, s in ((False, 0), (False, 1), (True, 2))
    )
    vae = BACKBONE.vae
    return [
        UNetBackbone(BACKBONE.unet, vae, [kind[0]], [kind[1]]),
        UNetBackbone(tiny_unet_xl(), vae, [first[0], second[0]], [first[1], second[1]]),
    ]


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_clip_skip_equals_diffusers(deep: list[UNetBackbone], skip: int) -> None:
    from diffusers import StableDiffusionPipeline

    backbone = deep[0]
    encoder = backbone.text_encoders[0]
    pipe = StableDiffusionPipeline(
        backbone.vae, encoder, backbone.tokenizers[0], backbone.unet, None, None,
        None, requires_safety_checker=False,
    )  # fmt: skip
    # transformers 5 has the norm where diffusers does not look for it
    vars(encoder)["text_model"] = SimpleNamespace(final_layer_norm=encoder.final_layer_norm)
    expected, _ = pipe.encode_prompt(["ab"], "cpu", 1, False, clip_skip=skip)
    states = backbone.embed_text(["ab"], options=TextOptions(clip_skip=skip))
    assert torch.equal(states.hidden, expected)
    assert torch.equal(states.hidden, backbone.embed_text(["ab"]).hidden) == (skip == 0)


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_clip_skip_of_sdxl_equals_diffusers(deep: list[UNetBackbone], skip: int) -> None:
    from diffusers import StableDiffusionXLPipeline

    xl = deep[1]
    pipe = StableDiffusionXLPipeline(xl.vae, *xl.text_encoders, *xl.tokenizers, xl.unet, None)
    hidden, _, pooled, _ = pipe.encode_prompt(
        ["ab"], "cd", "cpu", do_classifier_free_guidance=False, clip_skip=skip
    )
    states = xl.embed_text(["ab"], prompts_2=["cd"], options=TextOptions(clip_skip=skip))
    assert torch.equal(states.hidden, hidden) and torch.equal(states.pooled, pooled)


def test_clip_skip_beyond_the_encoder_is_refused() -> None:
    with pytest.raises(UserError, match="clip_skip is 2, but this text encoder has 2 layers"):
        BACKBONE.embed_text(["a"], options=TextOptions(clip_skip=2))


def test_embedding_of_the_tokens_vectors_changes_nothing() -> None:
    table = BACKBONE.text_encoders[0].get_input_embeddings().weight
    ids = BACKBONE.tokenizers[0]("cd e", add_special_tokens=False)["input_ids"]
    options = TextOptions(embeddings=tuple(embeddings_from({"style": table[ids].detach()})))
    states = BACKBONE.embed_text([parse("ab (style:1.3)"), plain("style")], options=options)
    assert torch.allclose(states.hidden[0], by_hand("ab cd e", [1, 1, 1.3, 1.3, 1.3]), atol=1e-5)
    assert torch.allclose(states.hidden[1], by_hand("cd e"), atol=1e-5)
    # the encoder itself is as it was
    assert torch.allclose(BACKBONE.embed_text(["ab"]).hidden[0], by_hand("ab"), atol=1e-6)


def test_embedding_of_another_base_is_refused(xl) -> None:
    wide = TextOptions(embeddings=(Embedding("x", {"any": torch.ones(1, 768)}),))
    with pytest.raises(UserError, match=r"any of 768, .* read vectors of 32 numbers"):
        BACKBONE.embed_text(["a"], options=wide)
    parts = {"clip_l": torch.ones(1, TEXT_WIDTH), "clip_g": torch.ones(1, TEXT_WIDTH)}
    with pytest.raises(UserError, match="belongs to another base"):
        BACKBONE.embed_text(["a"], options=TextOptions(embeddings=(Embedding("x", parts),)))
    assert xl.embed_text(["a"], options=TextOptions(embeddings=(Embedding("x", parts),)))
    many = TextOptions(embeddings=(Embedding("x", {"any": torch.ones(ROOM + 1, TEXT_WIDTH)}),))
    with pytest.raises(UserError, match=f"more than the {ROOM} tokens of a chunk"):
        BACKBONE.embed_text(["a"], options=many)


def test_embedding_for_one_encoder_of_two_is_noted(xl) -> None:
    one = TextOptions(embeddings=(Embedding("x", {"any": torch.ones(1, TEXT_WIDTH)}),))
    with pytest.warns(UserWarning, match="vectors for one text encoder of 2"):
        changed = xl.embed_text(["x"], options=one).hidden - xl.embed_text(["x"]).hidden
    assert changed[..., :TEXT_WIDTH].any() and not changed[..., TEXT_WIDTH:].any()
