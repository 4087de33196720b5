"""Long work asks whether it is still wanted, and stops where it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.tiny import randomise_, tiny_backbone
from tests.helpers.tiny_folder import save_backbone
from zeroconv.annotators.hed import CONVOLUTIONS, hed
from zeroconv.annotators.pose import run_graph
from zeroconv.conditions import annotate
from zeroconv.control import ControlNet
from zeroconv.stopping import stop_if_asked, stoppable

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))


class Stop(Exception):
    pass


def stops(work: Callable[[], Any], asked: int = 1) -> None:
    """The work stops at the question of that number, and asks no more."""
    count = 0

    def check() -> None:
        nonlocal count
        count += 1
        if count == asked:
            raise Stop

    with stoppable(check), pytest.raises(Stop):
        work()
    assert count == asked


@pytest.fixture(scope="module")
def base():
    return tiny_backbone()


@pytest.fixture(scope="module")
def net(base):
    return randomise_(ControlNet.from_backbone(base, condition="canny"))


def test_stopping_is_of_one_block_and_one_thread() -> None:
    import threading

    stop_if_asked()
    with stoppable(lambda: None):
        stops(stop_if_asked)
        stop_if_asked()  # the outer one again
    seen: list[str] = []
    with stoppable(lambda: seen.append("x")):
        other = threading.Thread(target=stop_if_asked)
        other.start()
        other.join()
    assert seen == []


@pytest.mark.parametrize("asked", [1, 3, 5])
def test_stopping_generate_between_steps_and_before_decoding(base, asked) -> None:
    from zeroconv.generation import generate

    stops(lambda: generate(base, "a", steps=4, height=64, width=64, scheduler="ddim"), asked)


def test_stopping_upscale_between_tiles(base) -> None:
    from zeroconv.generation import upscale

    done: list[int] = []

    def tiles() -> None:
        upscale(
            base, PICTURE, 3, tile=64, overlap=16, steps=2, strength=0.5, scheduler="ddim",
            callback=lambda *now: done.append(now[0]),
        )  # fmt: skip

    stops(tiles, 3)  # a step and the decoder a tile
    assert done == [1]


@pytest.mark.parametrize(("name", "asked"), [("softedge", 4), ("scribble", 9), ("blur", 1)])
def test_stopping_hints_that_are_drawn(name, asked) -> None:
    stops(lambda: annotate(name, PICTURE), asked)


def test_stopping_networks_of_annotators_between_layers() -> None:
    import torch

    nodes = [{"input": ["x", "k", "b"], "name": "n", "op": "Conv2D", "attr": {}}] * 2
    stops(lambda: run_graph(torch.zeros(1, 3, 17, 17), nodes, {}))
    stops(lambda: hed(torch.zeros(1, 3, 16, 16), {}))
    assert CONVOLUTIONS


LATE = [pytest.param(asked, marks=pytest.mark.slow) for asked in (20, 40)]


@pytest.mark.parametrize("asked", [1, 3, 7, *LATE])
def test_stopping_evaluate_anywhere(base, net, asked) -> None:
    from zeroconv.evaluation import evaluate

    def measured() -> None:
        evaluate(net, base=base, data="playroom:test", count=4, steps=2, varied=4, batch_size=4)

    stops(measured, asked)


def test_stopping_a_base_that_is_loaded(tmp_path) -> None:
    from zeroconv.backbones import load_backbone

    save_backbone(tmp_path / "base")
    stops(lambda: load_backbone(str(tmp_path / "base")), 5)


@pytest.mark.slow
def test_stopping_a_memory_plan(base, net) -> None:
    from zeroconv.training.execution.memory import activations
    from zeroconv.training.objective import ControlledLoss

    text = base.embed_text(["a"])
    stops(lambda: activations(ControlledLoss(base, net), 1, (8, 8), text), 2)
    assert activations(ControlledLoss(base, net), 1, (8, 8), text).parts  # and none of it is left
