"""Batches are functions of (seed, step), and put together as the mixture says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.scratch.tiny import make_shards
from zeroconv.errors import UserError
from zeroconv.scratch.corpus.batch import Mixture
from zeroconv.scratch.corpus.corpus import Corpus


def letters(captions) -> torch.Tensor:
    """A writer for tests: the captions' own bytes."""
    rows = [list(caption.encode()[:24].ljust(24, b"\0")) for caption in captions]
    return torch.tensor(rows)


def text_of(row: torch.Tensor) -> str:
    return bytes(row.tolist()).rstrip(b"\0").decode()


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    names = ("scenes-train-000", "scenes-train-001", "stickers-train-000")
    made = Corpus(make_shards(tmp_path, *names), [64], [letters], Mixture(batch=20, stickers=0.4))
    made.add(names)
    return made


def test_a_batch_of_a_corpus_is_the_same_whenever_it_is_asked_for(corpus: Corpus) -> None:
    first = corpus.batch(5, 64)
    corpus.batch(6, 64)
    again = corpus.batch(5, 64)

    assert torch.equal(first.latents, again.latents)
    assert torch.equal(first.tokens[0], again.tokens[0])
    assert not torch.equal(first.latents, corpus.batch(6, 64).latents)


def test_captions_of_a_corpus_belong_to_their_pictures(corpus: Corpus) -> None:
    for step in range(20):
        chosen, captions = corpus.choose(step)
        for picture, caption in zip(chosen, captions, strict=False):
            text = text_of(corpus.tokens[0][caption].to(torch.int64))
            shard, number = divmod(int(picture), 8)
            expected = (f"a red ball {number}", f"{corpus.names[shard]} {number}", "a cube")
            assert text in expected


def test_a_corpus_keeps_the_share_of_stickers_and_of_empty_prompts(corpus: Corpus) -> None:
    drawn = [corpus.choose(step)[0] for step in range(200)]
    share = np.isin(np.concatenate(drawn), corpus.of_kind["stickers"]).mean()
    batch = corpus.batch(0, 64)

    assert share == pytest.approx(0.4, abs=0.04)
    assert batch.prompt.tolist() == [*range(18), 18, 18]
    assert text_of(batch.tokens[0][18]) == ""


def test_latents_of_a_corpus_are_samples_of_the_moments(corpus: Corpus) -> None:
    chosen, _ = corpus.choose(3)
    mean = corpus.moments[64][torch.from_numpy(chosen)].float().chunk(2, 1)[0]
    apart = corpus.batch(3, 64).latents - mean

    assert apart.std() == pytest.approx(np.exp(-3), rel=0.1)
    assert abs(float(apart.mean())) < 0.01


def test_an_empty_corpus_says_how_to_draw_shards(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"scratch\.drawing"):
        Corpus(tmp_path, [64], [letters], Mixture()).batch(0, 64)
