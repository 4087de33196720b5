"""--device and --dtype of `train` and `cache`, in a recipe's words."""

from __future__ import annotations

import pytest
import torch

from zeroconv.cli.recipes import recipe_settings
from zeroconv.errors import UserError
from zeroconv.layers import cpu as cpu_layers


@pytest.fixture
def no_card(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("device", "dtype", "expected"),
    [
        (None, None, []),
        ("auto", None, ["device=auto"]),
        ("cpu", None, ["device=cpu"]),
        ("cpu", "float32", ["device=cpu", "training.precision=fp32"]),
        (None, "bfloat16", ["training.precision=bf16"]),
    ],
)
def test_the_options_are_settings_of_the_recipe(no_card, device, dtype, expected) -> None:
    assert recipe_settings(device, dtype) == expected


@pytest.mark.parametrize(("amx", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_trains_in_bfloat16_where_autocast_pays(no_card, monkeypatch, amx, precision) -> None:
    monkeypatch.setattr(cpu_layers, "has_bf16_matrix_unit", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert recipe_settings(None, "auto") == [f"training.precision={precision}"]


@pytest.mark.parametrize(
    ("device", "dtype"), [("cuda:99", None), ("", None), (None, "fp32"), ("cpu", "float16")]
)
def test_recipe_settings_that_cannot_be_met_are_refused(no_card, device, dtype) -> None:
    with pytest.raises(UserError):
        recipe_settings(device, dtype)
