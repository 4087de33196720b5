"""A base's training may start from the weights of another base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.scratch.tiny import TEXT, UNET
from zeroconv.errors import UserError
from zeroconv.scratch.base import TextToLatent
from zeroconv.scratch.base.model import start_from_
from zeroconv.scratch.embedded import PLAYROOM, embedded_tokenizer, embedded_vae
from zeroconv.scratch.export.bases import write_base


@pytest.mark.slow
def test_a_base_starts_from_the_weights_of_a_written_base(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = TextToLatent(UNET, TEXT)
    write_base(tmp_path, first, embedded_vae(), embedded_tokenizer())

    torch.manual_seed(1)
    second = TextToLatent(UNET, TEXT)
    start_from_(second, tmp_path)

    for name, value in second.state_dict().items():
        assert torch.equal(value, first.state_dict()[name].to(value.dtype)), name


def test_a_base_of_another_shape_is_no_start(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="another shape"):
        start_from_(TextToLatent(UNET, TEXT), PLAYROOM)
    with pytest.raises(UserError, match="give --start the folder of a playroom base"):
        start_from_(TextToLatent(UNET, TEXT), tmp_path)
