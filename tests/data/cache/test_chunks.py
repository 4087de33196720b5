"""Lists cut by their content: whole, of bounded lengths, and cut alike on both sides of a
change.
"""

from __future__ import annotations

import random

import pytest

from zeroconv.data.cache.chunks import chunks

KEYS = [f"picture {i}" for i in range(5000)]


def test_nothing_is_lost_and_lengths_are_bounded() -> None:
    cut = list(chunks(KEYS, 256))
    assert [key for chunk in cut for key in chunk] == KEYS
    lengths = [len(chunk) for chunk in cut]
    assert all(64 <= length <= 256 for length in lengths[:-1]) and 1 <= lengths[-1] <= 256
    assert 130 < sum(lengths) / len(lengths) < 200
    assert list(chunks([], 256)) == []


@pytest.mark.parametrize("most", [1, 2, 3, 8, 256])
def test_keys_that_are_all_the_same_are_cut_too(most: int) -> None:
    assert max(len(chunk) for chunk in chunks(["one"] * 1000, most)) <= most


@pytest.mark.parametrize("seed", range(20))
def test_a_change_moves_the_cuts_beside_it_alone(seed: int) -> None:
    rng = random.Random(seed)
    index = rng.randrange(len(KEYS))
    before = {tuple(chunk) for chunk in chunks(KEYS, 256)}
    for changed in ([*KEYS[:index], "new", *KEYS[index:]], [*KEYS[:index], *KEYS[index + 1 :]]):
        new = [chunk for chunk in chunks(changed, 256) if tuple(chunk) not in before]
        assert 1 <= len(new) <= 4


def test_a_change_costs_two_chunks_on_average() -> None:
    before = {tuple(chunk) for chunk in chunks(KEYS, 256)}
    rng, lost = random.Random(0), list[int]()
    for _ in range(100):
        index = rng.randrange(len(KEYS))
        changed = [*KEYS[:index], f"new {index}", *KEYS[index:]]
        lost.append(sum(tuple(chunk) not in before for chunk in chunks(changed, 256)))
    assert 1.6 < sum(lost) / len(lost) < 1.75 and max(lost) == 4  # as docs/design.md says


def test_what_is_added_at_the_end_leaves_all_but_the_last() -> None:
    before, after = list(chunks(KEYS[:3000], 256)), list(chunks(KEYS, 256))
    assert after[: len(before) - 1] == before[:-1]
