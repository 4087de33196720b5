"""The base's task refuses what would train it wrongly."""

from __future__ import annotations

import pytest

from tests.scratch.tiny import TEXT, UNET
from zeroconv.errors import UserError
from zeroconv.scratch.base import TextToLatent
from zeroconv.scratch.base.task import BaseTask


def test_a_base_is_not_compiled_on_a_cpu() -> None:
    model = TextToLatent(UNET, TEXT)
    with pytest.raises(UserError, match="wrong gradients"):
        BaseTask(compiled=True, model=model)
    assert BaseTask(model=model).predict is model
