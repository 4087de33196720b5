"""States of captions of any length, kept."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.tiny import TEXT_LENGTH, tiny_backbone, tiny_backbone_xl
from zeroconv.data.cache import text as text_module
from zeroconv.data.cache.text import cache_text
from zeroconv.data.storage.shards import Store, content_key
from zeroconv.prompts import parse

LONG = "a caption of more letters than one window takes"
CAPTIONS = [["a"], [LONG, "b"], ["c"], [f"{LONG} and more"]]
FLAT = ["", "a", LONG, "b", "c", f"{LONG} and more"]


@pytest.fixture(scope="module", params=[tiny_backbone, tiny_backbone_xl], ids=["sd", "xl"])
def backbone(request):
    return request.param()


def test_text_states_of_long_captions_are_kept_complete(backbone, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        cache_text(backbone, CAPTIONS, tmp_path)
        table = cache_text(backbone, CAPTIONS, tmp_path)  # as it is read back
    assert list(table.captions) == FLAT
    expected = backbone.embed_text(FLAT)
    for rows in ([0, 1], [2], [5, 0, 2, 1], [3, 5]):
        states, live = table.states(rows), backbone.embed_text([FLAT[row] for row in rows])
        assert states.hidden.shape == live.hidden.shape
        assert torch.allclose(states.hidden, live.hidden, atol=1e-5)
        for name in ("pooled", "time_ids"):
            kept, made = getattr(states, name), getattr(expected, name)
            assert (kept is None) == (made is None)
            assert kept is None or torch.allclose(kept, made[rows], atol=1e-5)


def test_text_states_of_short_captions_are_as_they_were(backbone, tmp_path: Path) -> None:
    table = cache_text(backbone, [["a", "b"], ["c"]], tmp_path)
    states = table.states([0, 1, 2, 3])
    assert torch.equal(states.hidden, backbone.embed_text(["", "a", "b", "c"]).hidden)
    assert states.hidden.shape[1] == TEXT_LENGTH
    assert "chunks" not in table.shards[0].arrays


def test_text_states_of_an_old_cache_are_made_again(tmp_path: Path) -> None:
    """Older ones hold captions that were cut."""
    backbone, parts = tiny_backbone(), ["", LONG]
    old = content_key(3, text_module.text_key(backbone), parts)
    Store(tmp_path, "text").write(old, {"hidden": np.zeros((2, TEXT_LENGTH, 32), np.float32)})
    table = cache_text(backbone, [[LONG]], tmp_path)
    assert table.states([1]).hidden.any() and table.states([1]).hidden.shape[1] > TEXT_LENGTH


def test_text_states_are_read_with_weights_where_the_recipe_says_so(tmp_path: Path) -> None:
    backbone, caption = tiny_backbone(), "a (b:1.5)"
    plain = cache_text(backbone, [[caption]], tmp_path).states([1]).hidden
    weighted = cache_text(backbone, [[caption]], tmp_path, weighted=True)
    assert torch.equal(plain, backbone.embed_text([caption]).hidden)
    assert torch.allclose(
        weighted.states([1]).hidden, backbone.embed_text([parse(caption)]).hidden, atol=1e-6
    )
    assert weighted.weighted and weighted.captions[1] == caption


def test_text_states_of_a_shard_with_wrong_counts_are_made_again(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    before = cache_text(backbone, [[LONG]], tmp_path).states([1]).hidden
    store = Store(tmp_path, "text")
    key = content_key(text_module.FORMAT, text_module.text_key(backbone), ["", LONG])
    arrays = {"hidden": np.zeros((3, TEXT_LENGTH, 32), np.float32), "chunks": np.array([1, 1])}
    store.path(key).unlink()
    store.write(key, arrays)
    with pytest.warns(UserWarning, match="made again"):
        again = cache_text(backbone, [[LONG]], tmp_path).states([1]).hidden
    assert torch.equal(again, before)
