"""Old public names work, print one note each, and mean what the new ones do."""

from __future__ import annotations

import importlib
import warnings

import pytest
import torch

from tests.helpers.tiny import randomise_, tiny_backbone
from zeroconv import renamed
from zeroconv.cli.generate.controls import renamed_option
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate


def files_of_notes(caught) -> list[str]:
    """Where the notes on old names point; other libraries warn of other things."""
    return [warning.filename for warning in caught if "is an old name" in str(warning.message)]


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture(scope="module")
def net(backbone):
    return randomise_(ControlNet.from_backbone(backbone, condition="canny"))


def test_control_takes_old_fields_with_a_note_at_the_callers_line(net) -> None:
    with pytest.warns(UserWarning, match="weight of Control is an old name") as caught:
        control = Control(net, None, weight=0.5, weights="guess")
    assert files_of_notes(caught) == [__file__] * 2
    assert control == Control(net, None, scale=0.5, connection_scales="guess")

    with pytest.warns(UserWarning, match="write scale"):
        assert control.weight == 0.5
    with pytest.warns(UserWarning, match="write connection_scales"):
        control.weights = [1.0] * 13
    assert control.connection_scales == [1.0] * 13


def test_generate_takes_old_arguments_with_a_note_at_the_callers_line(backbone, net) -> None:
    hint = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    few = {"steps": 1, "output": "tensor"}
    new = generate(backbone, "a", [Control(net, hint)], connection_scales="guess", **few)
    with pytest.warns(UserWarning, match="connection_weights of generate") as caught:
        old = generate(backbone, "a", [Control(net, hint)], connection_weights="guess", **few)
    assert files_of_notes(caught) == [__file__]
    assert torch.equal(old[0], new[0])


def test_an_old_and_a_new_name_of_one_argument_are_refused(backbone, net) -> None:
    with pytest.raises(TypeError, match="weight and scale, which are one; give scale"):
        Control(net, None, weight=0.5, scale=1.0)
    with pytest.raises(TypeError, match="connection_weights and connection_scales"):
        generate(backbone, "a", connection_weights="guess", connection_scales="guess")


def test_every_old_name_of_a_module_is_the_new_one() -> None:
    for path, names in renamed.NAMES.items():
        module = importlib.import_module(path)
        for old, new in names.items():
            with pytest.warns(UserWarning, match=f"{old} is an old name") as caught:
                renamed_to = getattr(module, old)
            assert files_of_notes(caught) == [__file__]
            assert renamed_to is getattr(module, new)
        with pytest.raises(AttributeError, match="nonsense"):
            _ = module.nonsense


def test_new_names_print_no_note(backbone, net) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*is an old name")
        control = Control(net, torch.rand(3, 64, 64), scale=0.5, connection_scales="resolution")
        assert control.scale == 0.5
        assert (
            renamed_option("--weight", None, [0.5]) == [0.5]
            and renamed_option("--weight", None, None) == []
        )
        generate(backbone, "a", [control], steps=1, connection_scales=[1.0] * 13)


def test_an_old_option_prints_a_note_and_is_not_mixed_with_the_new_one() -> None:
    with pytest.warns(UserWarning, match="--weight is an old name.*--scale"):
        assert renamed_option("--weight", [0.5, 1.0], None) == [0.5, 1.0]
    with pytest.raises(UserError, match="--weight and --scale are one option"):
        renamed_option("--weight", [0.5], [0.5])
