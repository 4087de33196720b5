"""Prompts of `generate`: weights, lengths, second prompts, sizes, states from outside."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.helpers.tiny import TEXT_LENGTH, TEXT_WIDTH, tiny_backbone, tiny_backbone_xl
from zeroconv.backbones import TextStates
from zeroconv.backbones.text import chunk_counts
from zeroconv.errors import UserError
from zeroconv.generation import generate
from zeroconv.generation.prompts import TextInputs
from zeroconv.generation.sizes import Sizes, sizes_of

BACKBONE = tiny_backbone()
LONG = "a long sentence, of more letters than a window"
COUNT = chunk_counts(BACKBONE, [LONG])[0]
SIZES = Sizes((64, 64), (0, 0), (64, 64))


@pytest.fixture
def xl():
    return tiny_backbone_xl()


def made(prompt, backbone=BACKBONE, **options) -> Tensor:
    options = {"steps": 2, "cfg": 3.0, "height": 64, "width": 64, **options}
    return torch.stack(generate(backbone, prompt, output="tensor", **options))


def same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-5)


def test_generate_reads_weights_unless_the_prompt_is_plain() -> None:
    assert not same(made("a (b:1.5)"), made("a b"))
    assert same(made("a (b:1)"), made("a b"))
    assert same(made(r"a \(b\)"), made("a (b)", plain_prompt=True))
    assert not same(made("a", negative="(b:1.5)"), made("a", negative="b"))


def test_generate_reads_all_of_a_long_prompt() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        long = made(LONG)
        assert not same(long, made(LONG + " b"))
        assert same(long, made(LONG, negative=""))
        assert not same(made("a", negative=LONG), made("a"))


def test_generate_makes_a_picture_independent_of_its_batch() -> None:
    prompts = ["a", LONG, "b", "c BREAK d"]
    together = made(prompts, seed=3)
    for i, prompt in enumerate(prompts):
        assert same(together[i : i + 1], made(prompt, seed=3 + i))


def test_text_inputs_batches_end_where_chunks_change() -> None:
    words = TextInputs(BACKBONE, ["a", "b", LONG, "c", "d", "e"], "", 1)
    assert words.chunks == [1, 1, COUNT, 1, 1, 1]
    parts = [(part.start, part.stop) for part in words.batches(2)]
    assert parts == [(0, 2), (2, 3), (3, 5), (5, 6)]


def test_text_inputs_have_equally_many_tokens_on_both_sides() -> None:
    for prompt, negative in ((LONG, "a"), ("a", LONG), (LONG, "")):
        words = TextInputs(BACKBONE, prompt, negative, 1)
        cond, uncond = words.states(slice(0, 1), 3.0, SIZES)
        assert uncond is not None
        assert cond.hidden.shape == uncond.hidden.shape == (1, COUNT * TEXT_LENGTH, TEXT_WIDTH)


def test_text_inputs_share_states_of_equal_sides() -> None:
    words = TextInputs(BACKBONE, ["a", "b"], ["a", "b"], 1)
    cond, uncond = words.states(slice(0, 2), 3.0, SIZES)
    assert cond is uncond
    assert words.states(slice(0, 2), 1, SIZES)[1] is None


def test_generate_takes_text_states() -> None:
    states = BACKBONE.embed_text(["a", LONG])
    negative = BACKBONE.embed_text(["no"])
    assert same(made(BACKBONE.embed_text(["a"])), made("a"))
    assert same(made("a", negative=negative), made("a", negative="no"))
    pictures = made(states, seed=[5, 6], count=1)
    assert same(pictures[1:], made(LONG, seed=6))
    assert len(made(states, count=2)) == 4


@pytest.mark.parametrize(
    ("states", "words"),
    [
        (TextStates(torch.zeros(1, 16, 8)), r"`hidden` of shape \(1, 16, 8\); tiny reads 32 "),
        (TextStates(torch.full((1, 16, 32), float("nan"))), "not finite"),
        (TextStates(torch.zeros(1, 20, 32)), "differ by no whole chunks of 16"),
    ],
)
def test_generate_refuses_text_states_that_do_not_fit(states: TextStates, words: str) -> None:
    with pytest.raises(UserError, match=words):
        made(states)


def test_generate_refuses_second_prompts_of_one_encoder() -> None:
    with pytest.raises(UserError, match="prompt_2 is for the second text encoder of SDXL"):
        made("a", prompt_2="b")
    with pytest.raises(UserError, match="negative_2 is for the second"):
        made("a", negative_2="b")


def test_generate_reads_second_prompts_of_sdxl(xl) -> None:
    assert same(made("a", xl, prompt_2="a", negative_2=""), made("a", xl))
    assert not same(made("a", xl, prompt_2="b"), made("a", xl))
    assert not same(made("a", xl, negative_2="b"), made("a", xl))


def test_generate_tells_sdxl_sizes_and_crop(xl) -> None:
    words = TextInputs(xl, "a", "b", 1)
    sizes = sizes_of(xl, 64, 96, (100, 200), (3, 4), None)
    for states in words.states(slice(0, 1), 3.0, sizes):
        assert states is not None and states.time_ids is not None
        assert states.time_ids.tolist() == [[100, 200, 3, 4, 64, 96]]
    assert not same(made("a", xl, crop=(0, 60)), made("a", xl))
    with pytest.warns(UserWarning, match="crop: read by SDXL alone"):
        made("a", crop=(0, 60))
    with pytest.raises(TypeError, match=r"a pair \(height, width\)"):
        made("a", xl, original_size=64)
    with pytest.raises(UserError, match="crop is -1"):
        made("a", xl, crop=(-1, 0))


def test_generate_zeroes_empty_negatives_where_the_base_says_so(xl) -> None:
    plain = made("a", xl)
    xl.zero_empty_negative = True
    words = TextInputs(xl, ["a", "b", ""], ["", "c", ""], 1)
    cond, uncond = words.states(slice(0, 3), 3.0, SIZES)
    assert uncond is not None and uncond.pooled is not None
    assert [bool(part.any()) for part in uncond.hidden] == [False, True, False]
    assert [bool(part.any()) for part in uncond.pooled] == [False, True, False]
    assert cond.hidden[2].any()
    assert not same(made("a", xl), plain)


def test_generate_of_sdxl_equals_diffusers(xl) -> None:
    """Second prompts, sizes, clip skip left alone, and the zeroed negative."""
    import numpy as np
    from diffusers import StableDiffusionXLPipeline

    from zeroconv.generation.samplers.names import make_scheduler

    xl.zero_empty_negative = True
    pipe = StableDiffusionXLPipeline(
        xl.vae, *xl.text_encoders, *xl.tokenizers, xl.unet, make_scheduler("ddim", xl),
        force_zeros_for_empty_prompt=True, add_watermarker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    for negative in (None, "dark"):
        expected = pipe(
            "a ball", prompt_2="b", negative_prompt=negative, latents=noise.clone(),
            num_inference_steps=4, guidance_scale=5.0, output_type="np", height=64, width=64,
            original_size=(90, 80), crops_coords_top_left=(3, 4), target_size=(64, 64),
            negative_original_size=(90, 80), negative_crops_coords_top_left=(3, 4),
            negative_target_size=(64, 64),
        ).images  # fmt: skip
        ours = made(
            "a ball", xl, prompt_2="b", negative=negative or "", latents=noise, steps=4, cfg=5.0,
            scheduler="ddim", original_size=(90, 80), crop=(3, 4),
        )  # fmt: skip
        assert np.abs(ours.permute(0, 2, 3, 1).numpy() - expected).max() < 1e-3


def test_generate_reads_embeddings() -> None:
    table = BACKBONE.text_encoders[0].get_input_embeddings().weight
    ids = BACKBONE.tokenizers[0]("cd", add_special_tokens=False)["input_ids"]
    options = {"embeddings": {"style": table[ids].detach()}}
    assert same(made("a style", **options), made("a cd"))
    assert not same(made("a style"), made("a cd"))
    with pytest.warns(UserWarning, match="the embedding 'style' is in no prompt"):
        made("a stile", **options)


def test_generate_notes_what_prompts_hold() -> None:
    with pytest.warns(UserWarning, match="prompt: ") as noted:
        made(["[a|b] <lora:x:0.5>"], negative="(a")
    text = "\n".join(str(one.message) for one in noted)
    assert "[a|b] is not supported" in text and "is not closed" in text
    assert "<lora:x:…> is taken out of the text, but no file is loaded" in text
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        made(["[a|b]"], plain_prompt=True)


def test_generate_refuses_wrong_text_options() -> None:
    with pytest.raises(TypeError, match="clip_skip is a str"):
        made("a", clip_skip="1")
    with pytest.raises(UserError, match="clip_skip is -1"):
        made("a", clip_skip=-1)
    with pytest.raises(TypeError, match="plain_prompt is a int"):
        made("a", plain_prompt=1)
    with pytest.raises(UserError, match="text states, so prompt_2"):
        made(replace(BACKBONE.embed_text(["a"])), prompt_2="b")


def test_generate_notes_names_of_embeddings_that_are_not_there() -> None:
    options = {"embeddings": {"my style": torch.zeros(1, 32)}, "steps": 1}
    with pytest.warns(UserWarning, match="'embedding:other' is read as text") as caught:
        generate(BACKBONE, "a embedding:My style, (embedding:other:1.2)", **options)
    assert not any("my" in str(one.message).lower() for one in caught)


def test_generate_notes_a_negative_prompt_without_guidance() -> None:
    with pytest.warns(UserWarning, match="negative prompt changes nothing at cfg 1"):
        generate(BACKBONE, "a", negative="b", cfg=1.0, steps=1)
