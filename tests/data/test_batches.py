"""Batches are a function of (seed, step): every example once a pass, prompts dropped anew, hint
with picture.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zeroconv.data.batches import BatchPlan, hints_to_float
from zeroconv.data.cache.examples import Examples, Table, TextTable
from zeroconv.data.storage.shards import Shard


@pytest.fixture
def examples() -> Examples:
    """Ten examples in two shards; every array tells which example it belongs to."""
    n = 10
    values = np.arange(n, dtype=np.float32)[:, None, None, None]
    moments = np.broadcast_to(values, (n, 2, 4, 4)).copy()
    hints = np.broadcast_to(10 * np.arange(n, dtype=np.uint8)[:, None, None], (n, 8, 8)).copy()
    hints[:, :, 0] = 255  # the left edge, so that a mirrored hint is known
    text = np.arange(n + 1, dtype=np.float32)[:, None, None] * np.ones((1, 3, 5), np.float32)
    table = TextTable([Shard({"hidden": text}, None)], [str(i) for i in range(n + 1)])
    return Examples(
        moments=Table([moments[:4], moments[4:]]),
        mirrored=Table([100 + moments]),
        hints=Table([hints[:4], hints[4:]]),
        captions=[(i + 1,) for i in range(n)],
        mirrorable=np.arange(n) != 3,
        text=table,
    )


def test_a_pass_takes_every_example_once(examples: Examples) -> None:
    plan = BatchPlan(examples, batch_size=4, seed=1)
    seen = np.concatenate([plan.order(step) for step in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()
    assert not np.array_equal(plan.order(0), BatchPlan(examples, 4, seed=2).order(0))


def test_processes_share_a_pass_without_overlap(examples: Examples) -> None:
    parts = [
        BatchPlan(examples, batch_size=5, seed=1, rank=rank, world=2).order(0) for rank in range(2)
    ]
    assert sorted(np.concatenate(parts)) == list(range(10))


def test_what_belongs_together_stays_together(examples: Examples) -> None:
    batch = BatchPlan(examples, batch_size=10, prompt_dropping=0).batch(3)
    assert torch.equal(batch.moments[:, 0, 0, 0], torch.from_numpy(batch.indices).float())
    assert torch.equal(batch.hints[:, 0, 0, 1].long(), 10 * torch.from_numpy(batch.indices))
    assert torch.equal(batch.text.hidden[:, 0, 0], torch.from_numpy(batch.indices).float() + 1)


def test_prompts_are_dropped_anew_every_step(examples: Examples) -> None:
    plan = BatchPlan(examples, batch_size=10, prompt_dropping=0.5)
    empty = torch.stack([plan.batch(step).text.hidden[:, 0, 0] == 0 for step in range(200)]).float()
    assert empty.mean() == pytest.approx(0.5, abs=0.05)
    assert (empty.sum(dim=1) > 0).any()
    indices = np.stack([plan.batch(step).indices for step in range(200)])
    for i in range(10):  # each example is seen with and without its caption
        assert 0.2 < empty[torch.from_numpy(indices == i)].mean() < 0.8
    assert not BatchPlan(examples, 10, prompt_dropping=0).batch(0).text.hidden.eq(0).any()


def test_a_mirrored_picture_has_a_mirrored_hint(examples: Examples) -> None:
    batches = [BatchPlan(examples, batch_size=10, flip=True).batch(step) for step in range(20)]
    turned = torch.cat([batch.moments[:, 0, 0, 0] >= 100 for batch in batches])
    hints = torch.cat([batch.hints for batch in batches])
    indices = np.concatenate([batch.indices for batch in batches])
    assert torch.equal(hints[:, 0, 0, -1] == 255, turned)
    assert torch.equal(hints[:, 0, 0, 0] == 255, ~turned)
    assert 0.3 < turned.float().mean() < 0.6
    assert not turned[torch.from_numpy(indices == 3)].any()  # its caption says left


def test_some_hints_are_blanked(examples: Examples) -> None:
    plan = BatchPlan(examples, batch_size=10, hint_dropout=0.3)
    blank = torch.stack([plan.batch(step).hints.amax(dim=(1, 2, 3)) == 0 for step in range(100)])
    assert blank.float().mean() == pytest.approx(0.3, abs=0.06)


def test_reading_ahead_changes_nothing(examples: Examples) -> None:
    plan = BatchPlan(examples, batch_size=4, seed=5)
    stream = plan.from_step(7)
    for step in (7, 8, 9):
        ahead, direct = next(stream), plan.batch(step)
        assert torch.equal(ahead.moments, direct.moments)
        assert torch.equal(ahead.text.hidden, direct.text.hidden)
    stream.close()  # type: ignore[attr-defined]


def test_a_reader_that_fails_is_heard(examples: Examples) -> None:
    examples.hints = Table([examples.hints.parts[0]])
    with pytest.raises(IndexError):
        next(BatchPlan(examples, batch_size=10).from_step(0))


def test_hints_are_between_zero_and_one() -> None:
    grey = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 2)
    assert hints_to_float(grey).tolist() == [[[[0, 1]]] * 3]
