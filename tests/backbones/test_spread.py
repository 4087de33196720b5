"""Which residual goes to which block: each rule on cases worked out by hand."""

from __future__ import annotations

import pytest

from zeroconv.backbones.spread import Rule, numbers, spread
from zeroconv.errors import UserError


@pytest.mark.parametrize(
    ("rule", "residuals", "blocks", "expected"),
    [
        ("identity", 3, 3, [0, 1, 2]),
        # SD 3: int(i / (B / K))
        ("interval", 2, 4, [0, 0, 1, 1]),
        ("interval", 2, 5, [0, 0, 0, 1, 1]),
        ("interval", 3, 5, [0, 0, 1, 1, 2]),
        ("interval", 4, 5, [0, 0, 1, 2, 3]),
        ("interval", 5, 5, [0, 1, 2, 3, 4]),
        # FLUX, Qwen-Image: i // ceil(B / K)
        ("ceil", 2, 5, [0, 0, 0, 1, 1]),
        ("ceil", 4, 5, [0, 0, 1, 1, 2]),  # the last residual is not used
        ("ceil", 4, 8, [0, 0, 1, 1, 2, 2, 3, 3]),
        ("modulo", 2, 5, [0, 1, 0, 1, 0]),
        ("offset", 3, 6, [None, 0, 1, 2, None, None]),
        ("offset", 3, 4, [None, 0, 1, 2]),
        ("reversed", 3, 3, [2, 1, 0]),
        ({0: 0, 2: 1}, 2, 5, [0, None, 1, None, None]),
    ],
)
def test_spread_rules_by_hand(
    rule: Rule, residuals: int, blocks: int, expected: list[int | None]
) -> None:
    assert list(numbers(rule, residuals, blocks)) == expected
    letters = "abcde"[:residuals]
    assert spread(letters, rule, blocks) == [None if n is None else letters[n] for n in expected]


def test_spread_of_published_sizes() -> None:
    """FLUX: 5 over 19 double blocks and 10 over 38 single ones; Qwen-Image: 5 over 60; SD 3: 12
    over 24; Z-Image: 6 of 30 layers.
    """
    counts = {
        ("ceil", 5, 19): [4, 4, 4, 4, 3],
        ("ceil", 10, 38): [4] * 9 + [2],
        ("ceil", 5, 60): [12] * 5,
        ("interval", 12, 24): [2] * 12,
    }
    for (rule, residuals, blocks), expected in counts.items():
        chosen = numbers(rule, residuals, blocks)
        assert [chosen.count(i) for i in range(residuals)] == expected
    layers = numbers({layer: i for i, layer in enumerate(range(0, 30, 5))}, 6, 30)
    assert [i for i, number in enumerate(layers) if number is not None] == [0, 5, 10, 15, 20, 25]


@pytest.mark.parametrize("rule", ["interval", "ceil", "modulo"])
def test_spread_gives_every_block_a_residual_that_exists(rule: str) -> None:
    for blocks in range(1, 61):
        for residuals in range(1, blocks + 1):
            chosen = numbers(rule, residuals, blocks)
            assert len(chosen) == blocks and chosen[0] == 0
            assert all(n is not None and 0 <= n < residuals for n in chosen)


@pytest.mark.parametrize(
    ("rule", "residuals", "blocks", "message"),
    [
        ("nearest", 1, 1, "there is no rule 'nearest'"),
        ("identity", 2, 3, "made for another base"),
        ("reversed", 2, 3, "made for another base"),
        ("interval", 4, 3, "made for another base"),
        ("offset", 3, 3, "made for another base"),
        ("ceil", 0, 3, "cannot be spread"),
        ({3: 0}, 1, 3, "after block 3"),
        ({0: 1}, 1, 3, "residual 1 cannot"),
    ],
)
def test_spread_refuses_what_does_not_fit(
    rule: Rule, residuals: int, blocks: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        numbers(rule, residuals, blocks)
