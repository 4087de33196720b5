"""Modules without memory, made in one thread, change nothing of what others make."""

from __future__ import annotations

import threading

import pytest
from torch import nn

from zeroconv.layers.unfilled import unfilled


def devices(module: nn.Module) -> set[str]:
    return {tensor.device.type for tensor in module.parameters()}


def test_unfilled_has_parameters_without_memory_and_real_buffers() -> None:
    with unfilled():
        module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.BatchNorm2d(4))
        frozen = nn.Parameter(nn.Linear(2, 2).weight.detach(), requires_grad=False)
        module.register_parameter("frozen", frozen)
        module.register_parameter("none", None)
    assert devices(module) == {"meta"}
    assert {buffer.device.type for buffer in module.buffers()} == {"cpu"}
    assert not module.frozen.requires_grad and module[0].weight.requires_grad


def test_unfilled_ends_also_after_an_error_and_inside_of_itself() -> None:
    plain = nn.Module.register_parameter
    with pytest.raises(ValueError, match="x"), unfilled():
        with unfilled():
            nn.Linear(1, 1)
        assert devices(nn.Linear(1, 1)) == {"meta"}
        raise ValueError("x")
    assert nn.Module.register_parameter is plain and devices(nn.Linear(1, 1)) == {"cpu"}


def test_unfilled_is_of_one_thread() -> None:
    """Two threads are inside at once, and leave in the order of their coming; a third makes real
    modules meanwhile.
    """
    plain = nn.Module.register_parameter
    steps = [threading.Event() for _ in range(3)]
    seen: dict[str, set[str]] = {}

    def first() -> None:
        with unfilled():
            steps[0].set()
            steps[1].wait(30)
            seen["first"] = devices(nn.Linear(1, 1))
        steps[2].set()

    def second() -> None:
        steps[0].wait(30)
        with unfilled():
            steps[1].set()
            steps[2].wait(30)  # the first has left
            seen["second"] = devices(nn.Linear(1, 1))

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    steps[1].wait(30)
    seen["third"] = devices(nn.Linear(1, 1))
    for thread in threads:
        thread.join(30)
    assert seen == {"first": {"meta"}, "second": {"meta"}, "third": {"cpu"}}
    assert nn.Module.register_parameter is plain and devices(nn.Linear(1, 1)) == {"cpu"}
