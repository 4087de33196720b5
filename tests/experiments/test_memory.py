"""A picture is remembered under all that decides it, and made again as soon as any of that
changes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import experiments.memory as memory
from experiments.memory import Maker, digest
from tests.helpers.tiny import randomise_, tiny_backbone
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture(scope="module")
def net(backbone):
    return randomise_(ControlNet.from_backbone(backbone, condition="canny"), scale=0.5)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    made: list[int] = []

    def counting(backbone, prompts, *args, **kwargs):
        made.append(len(prompts))
        return generate(backbone, prompts, *args, **kwargs)

    monkeypatch.setattr(memory, "generate", counting)
    return made


def hints(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 2, (64, 64, 3), np.uint8) * 255) for _ in range(count)]


def pixels(images: list[Image.Image]) -> list[bytes]:
    return [image.tobytes() for image in images]


def test_pictures_are_made_once_and_are_what_generate_makes(
    backbone, net, calls, tmp_path: Path
) -> None:
    make = Maker(backbone, tmp_path, batch_size=2)
    prompts, drawn = ["a", "b", "c"], hints(3)
    first = make(prompts, [Control(net, drawn)], steps=2)
    assert (
        calls == [2, 1] and len(make.costs) == 3 and all(cost > 0 for cost in make.costs.values())
    )
    plain = generate(
        backbone, prompts, [Control(net, drawn)], guidance="cond", cfg=4.0, steps=2, seed=[0, 1, 2]
    )
    difference = np.abs(
        np.stack(
            [np.asarray(a, int) - np.asarray(b, int) for a, b in zip(first, plain, strict=True)]
        )
    )
    assert difference.max() <= 1  # batches of another size add up in another order
    again = Maker(backbone, tmp_path)
    assert (
        pixels(again(prompts, [Control(net, drawn)], steps=2)) == pixels(first) and len(calls) == 2
    )
    assert again.costs == make.costs
    more = again([*prompts, "d"], [Control(net, [*drawn, drawn[0]])], steps=2)
    assert calls == [2, 1, 1] and pixels(more)[:3] == pixels(first)


def test_fresh_pictures_are_made_once_a_program(backbone, net, calls, tmp_path: Path) -> None:
    for _ in range(2):
        make = Maker(backbone, tmp_path, fresh=True)
        for _ in range(2):
            make(["a", "b"], [Control(net, hints(2))], steps=1)
        make(["a", "c"], [Control(net, hints(2))], steps=1)
    assert calls == [2, 1] * 2


@pytest.mark.slow
def test_whatever_decides_a_picture_is_in_its_name(backbone, net, calls, tmp_path: Path) -> None:
    make, (one, other) = Maker(backbone, tmp_path), hints(2)
    variants = [
        (["a"], [Control(net, one)], [0], {}),
        (["b"], [Control(net, one)], [0], {}),
        (["a"], [Control(net, other)], [0], {}),
        (["a"], [Control(net, one, scale=0.5)], [0], {}),
        (["a"], [Control(net, one, end=0.5)], [0], {}),
        (["a"], [Control(net, one), Control(net, other)], [0], {}),
        (["a"], [], [0], {}),
        (["a"], [Control(net, one)], [1], {}),
        (["a"], [Control(net, one)], [0], {"guidance": "both"}),
        (["a"], [Control(net, one)], [0], {"cfg": 2.0}),
        (["a"], [Control(net, one)], [0], {"steps": 3}),
    ]
    made = [pixels(make(p, c, s, **{"steps": 2, **settings}))[0] for p, c, s, settings in variants]
    assert len(calls) == len(variants) and len(set(made)) == len(variants)


def test_a_control_that_was_trained_on_makes_new_pictures(backbone, calls, tmp_path: Path) -> None:
    net = randomise_(ControlNet.from_backbone(backbone))
    make, drawn, before = Maker(backbone, tmp_path), hints(1), digest(net)
    make(["a"], [Control(net, drawn)], steps=1)
    with torch.no_grad():
        next(net.zero_convs.parameters()).add_(0.1)
    assert digest(net) != before
    make(["a"], [Control(net, drawn)], steps=1)
    assert len(calls) == 2


def test_hints_and_prompts_must_match(backbone, net, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 hints were given for 3 prompts"):
        Maker(backbone, tmp_path)(["a"] * 3, [Control(net, hints(2))])
