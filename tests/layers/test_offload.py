"""Weights that come when their modules run: the order of moves, what is there at once, and that
nothing of the results changes.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from zeroconv.layers.offload import File, MainMemory, Pages, Residency, Spill
from zeroconv.layers.parking import Parked

CPU = torch.device("cpu")


class Recorder:
    """A home that writes down who comes and goes; weights that are away are NaN."""

    log: list[str]
    there: list[int]

    def __init__(self, tensors: Iterable[Tensor], device: torch.device) -> None:
        self.pairs = [(tensor, tensor.data) for tensor in tensors]
        self.name = f"{sum(kept.numel() for _, kept in self.pairs)}"
        for tensor, kept in self.pairs:
            tensor.data = torch.full_like(kept, float("nan"))

    def bring(self) -> None:
        self.log.append(f"+{self.name}")
        self.there.append(self.there[-1] + int(self.name))
        for tensor, kept in self.pairs:
            tensor.data = kept.clone()

    def drop(self) -> None:
        self.log.append(f"-{self.name}")
        self.there.append(self.there[-1] - int(self.name))
        for tensor, kept in self.pairs:
            tensor.data = torch.full_like(kept, float("nan"))


@pytest.fixture
def recorder() -> type[Recorder]:
    Recorder.log, Recorder.there = [], [0]
    return Recorder


def test_residency_has_one_group_at_a_time_in_the_order_of_use(recorder: type[Recorder]) -> None:
    """Also under inference mode, whose tensors cannot be a parameter's data."""
    torch.manual_seed(0)
    first, second = nn.Linear(3, 5), nn.Sequential(nn.Linear(5, 2), nn.ReLU(), nn.Linear(2, 1))
    x = torch.randn(4, 3)
    expected = second(first(x))

    residency = Residency(CPU, recorder)
    residency.hold("first", [first])
    residency.hold("second", [second])
    assert first.weight.isnan().all()

    with torch.inference_mode():
        for _ in range(2):
            assert torch.equal(second(first(x)), expected)
    assert recorder.log == ["+20", "-20", "+15", "-15", "+20", "-20", "+15"]
    assert max(recorder.there) == 20
    assert residency.moves == {"first": 2, "second": 2}


def test_residency_holds_shared_weights_once_and_keeps_their_group(
    recorder: type[Recorder],
) -> None:
    shared = nn.Linear(4, 4)
    residency = Residency(CPU, recorder)
    residency.hold("first", [shared])
    residency.hold("second", [nn.ModuleList([shared])])
    shared(torch.zeros(1, 4))
    assert recorder.log == ["+20"]


def test_a_group_that_grows_while_it_is_there_is_there_as_a_whole(
    recorder: type[Recorder],
) -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 2)
    residency = Residency(CPU, recorder)
    residency.hold("unet", [first])
    first(torch.zeros(1, 4))
    residency.hold("unet", [second])
    assert not second(first(torch.zeros(1, 4))).isnan().any()


@pytest.mark.parametrize("home", [File, MainMemory])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int8])
def test_homes_keep_every_bit_shape_and_layout(home, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    shapes = [(), (0,), (7,), (5, 3), (4, 6, 3, 3), (1, 3, 1, 1)]
    tensors = [(torch.randn(shape) * 50).to(dtype) for shape in shapes]
    tensors.append(tensors[4].contiguous(memory_format=torch.channels_last))
    tensors.append(tensors[3].t())
    tensors.append(torch.stack([tensors[3].float()] * 2, 2).to(dtype)[..., 0])  # with holes
    expected = [tensor.clone() for tensor in tensors]
    strides = [tensor.stride() for tensor in tensors[:-1]]

    kept = home(tensors, CPU)
    for _ in range(2):
        kept.bring()
        for tensor, value in zip(tensors, expected, strict=True):
            assert torch.equal(tensor.float(), value.float())
        assert [tensor.stride() for tensor in tensors[:-1]] == strides
        kept.drop()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parked_tensors_come_back_as_they_were(dtype: torch.dtype) -> None:
    parked = Parked()
    for shape in ((2, 3, 4, 5), (1, 2, 1, 1), (3, 3, 9, 9)):
        x = torch.randn(shape).to(dtype)
        parked.put(x[..., :-1] if shape[-1] > 1 else x)
        assert torch.equal(parked.get(), x[..., :-1] if shape[-1] > 1 else x)
    parked.close()


def test_spill_is_the_home_of_what_it_took_and_files_are_of_the_rest() -> None:
    spill = Spill()
    numbers = torch.arange(6000, dtype=torch.float32).reshape(2, 3000)
    taken = spill.take(iter([("a", numbers), ("b", numbers.bfloat16()), ("empty", torch.empty(0))]))
    home = spill(list(taken.values()), CPU)
    assert isinstance(home, Pages)
    for _ in range(2):  # the pages come back from the file
        home.drop()
        home.bring()
        assert torch.equal(taken["a"], numbers) and torch.equal(taken["b"], numbers.bfloat16())
    assert taken["empty"].shape == (0,)
    other = numbers.clone()
    assert isinstance(spill([taken["a"], other], CPU), File)
    assert torch.equal(other, numbers)
