"""The reader's training goes on where it stopped, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from zeroconv.errors import UserError
from zeroconv.scratch.loop.state import read_weights
from zeroconv.scratch.reader import ReaderConfig, train_reader

TINY = ReaderConfig(scenes=4, steps=3, batch_size=2, warmup=1)


class Copying:
    """A backbone whose autoencoder gives every picture back."""

    def encode_image(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def latents_from_moments(self, z: torch.Tensor, sample: bool) -> torch.Tensor:
        return z

    def decode_latents(self, z: torch.Tensor) -> torch.Tensor:
        return (z + 1) / 2


@pytest.mark.slow
def test_a_reader_goes_on_bit_for_bit_and_ends_as_its_average(tmp_path: Path) -> None:
    lines: list[str] = []
    straight = train_reader(tmp_path, TINY, Copying(), lines.append)
    first = read_weights(tmp_path)
    (tmp_path / "state.pt").unlink()

    longer = replace(TINY, minutes=None)
    with pytest.MonkeyPatch.context() as patch:
        go = "zeroconv.scratch.loop.run.Run.finish"
        patch.setattr(go, lambda run: run.go(1))  # stopped after a step
        train_reader(tmp_path, longer, Copying(), lines.append)
    again = train_reader(tmp_path, longer, Copying(), lines.append)
    second = read_weights(tmp_path)

    assert first is not None and second is not None
    assert all(torch.equal(first[name], second[name]) for name in first)
    averaged = straight.state_dict()
    assert all(torch.equal(averaged[name], v) for name, v in again.state_dict().items())
    assert any(not torch.equal(averaged[name], first[name]) for name in first)
    assert "going on at step 1" in lines


def test_a_reader_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "reader.pt").touch()
    with pytest.raises(UserError, match="another folder"):
        train_reader(tmp_path, TINY, Copying())
