"""Networks read pictures where they are told to, in other processes too."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from torch import nn

from zeroconv.annotators.placing import placed, reading_on
from zeroconv.cli.reading import reading
from zeroconv.errors import UserError


def where() -> tuple[str, str, str]:
    """Device and dtype of a network and its inputs, and of what is no number with a fraction."""
    net = nn.Linear(2, 2)
    inputs = placed(
        net, {"pixels": torch.ones(1, 2), "ids": torch.ones(1, dtype=torch.long), "n": 3}
    )
    assert inputs["pixels"].dtype == net.weight.dtype
    assert inputs["n"] == 3
    return str(net.weight.device), str(net.weight.dtype), str(inputs["ids"].dtype)


def test_annotators_read_on_the_device_and_dtype_given() -> None:
    plain = ("cpu", "torch.float32", "torch.int64")
    assert where() == plain
    with reading_on("meta", "bfloat16"):
        assert where() == ("meta", "torch.bfloat16", "torch.int64")
        with reading_on("cpu"):
            assert where() == plain
        assert where()[0] == "meta"
    assert where() == plain


def test_processes_that_are_started_know_it_too() -> None:
    with (
        reading_on("cpu", "bfloat16"),
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
    ):
        assert pool.submit(where).result() == ("cpu", "torch.bfloat16", "torch.int64")


def test_annotator_options_are_checked_and_noted_where_they_change_nothing() -> None:
    with pytest.raises(UserError, match="no device"), reading("owner/model", "toaster", "float32"):
        pass
    with pytest.raises(UserError, match="no dtype"), reading(None, "auto", "int8"):
        pass
    with pytest.warns(UserWarning, match="on the processor"), reading("hed", "cpu", "bfloat16"):
        pass
    with reading("owner/model", "cpu", "bfloat16"):
        assert where()[1] == "torch.bfloat16"
