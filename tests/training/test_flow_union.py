"""A union control of FLUX.1 learns hints of several kinds, its modes; others have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import tiny_flow
from tests.training.test_flow import Make, make, quiet, root  # noqa: F401
from zeroconv.backbones import TextStates, load_backbone
from zeroconv.control import ControlNet
from zeroconv.control.flux import FluxControlNet
from zeroconv.errors import UserError
from zeroconv.training.assembling import make_control
from zeroconv.training.model import kinds_of

pytestmark = pytest.mark.filterwarnings("ignore:T5 reads")
UNION = {"kind": "union", "blocks": 2, "options": {"num_control_type": 5}}


def test_flux_union_of_mixed_modes_is_each_mode_by_itself(make: Make) -> None:  # noqa: F811
    base: Any = load_backbone(make("flux").base)
    control: Any = make_control(make("flux", UNION), base)
    assert control.config["num_mode"] == 5 and len(control.connections) == 2
    tiny_flow.randomised(control)
    z, hint, t = tiny_flow.inputs()
    text = TextStates(torch.randn(2, 8, 24), torch.randn(2, 16))
    with control.showing(torch.tensor([0, 2])):
        together = control(z, hint, t, text)
    for i, kind in enumerate(("canny", "depth")):
        row = slice(i, i + 1)
        alone = control.of_kind(kind)(z[row], hint[row], t[row], text[row])
        for one, many in zip(alone, together, strict=True):
            torch.testing.assert_close(many[row], one, rtol=1e-4, atol=1e-5)
    assert kinds_of(control, "canny", [None, "depth", "pose"]) == {None: 0, "depth": 2, "pose": 4}
    with pytest.raises(UserError, match="no mode for 'normal'"):
        kinds_of(control, "normal", [None])


@pytest.mark.slow
def test_flux_union_trains_and_goes_on_from_what_it_saved(make: Make) -> None:  # noqa: F811
    settings: dict[str, Any] = {"steps": 3, "validate_every": 3, "sample_count": 2}
    settings |= {"sample_steps": 2}
    recipe = make("flux", UNION, out="first", **settings)
    source = recipe.data.train[0]
    several = recipe.data.model_copy(
        update={"train": [f"{source}?limit=20", f"{source}?condition=canny&limit=20"]}
    )
    out = quiet(recipe.model_copy(update={"data": several}))
    base = load_backbone(make("flux").base)
    control: Any = ControlNet.load(out / "control", backbone=base)
    assert isinstance(control, FluxControlNet) and control.config["num_mode"] == 5
    assert (
        float(control.network.controlnet_mode_embedder.weight.detach().abs().sum(1)[[0, 2]].min())
        > 0
    )
    again = make("flux", {"init": str(out / "control")}, out="second", **settings)
    assert (Path(quiet(again)) / "control").is_dir()


@pytest.mark.parametrize(
    "name", ["qwen", *(pytest.param(n, marks=pytest.mark.slow) for n in ("sd3", "zimage"))]
)
def test_union_of_a_base_without_modes_is_refused(make: Make, name: str) -> None:  # noqa: F811
    recipe = make(name, {"kind": "union"})
    with pytest.raises(UserError, match="has no modes; train a controlnet on hints of several"):
        make_control(recipe, load_backbone(recipe.base))
