"""Controls that share a copy: written without it, read whole, converted whole."""

from __future__ import annotations

import json

import pytest
import torch

from tests.helpers.tiny import tiny_backbone
from zeroconv.checkpoints.convert import convert
from zeroconv.control import ControlNet
from zeroconv.control.files import diffusers_state
from zeroconv.errors import UserError


@pytest.fixture
def folders(tmp_path):
    """A whole control in `shared`, and in `own` one that differs from it in hint encoder and
    connections.
    """
    torch.manual_seed(0)
    control = ControlNet.from_backbone(tiny_backbone(), condition="canny")
    with torch.no_grad():
        for parameter in control.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    control.save(tmp_path / "shared", torch.float16)
    with torch.no_grad():
        for parameter in (*control.hint_encoder.parameters(), *control.zero_convs.parameters()):
            parameter.add_(0.1 * torch.randn_like(parameter))
    control.config["zeroconv"]["condition"] = "pose"
    control.save(tmp_path / "own", torch.float16, shared=tmp_path / "shared")
    control.save(tmp_path / "whole", torch.float16)
    return tmp_path


def test_shared_control_is_written_as_a_difference_and_read_complete(folders):
    sizes = {
        n: (folders / n / "diffusion_pytorch_model.safetensors").stat().st_size
        for n in ("own", "whole")
    }
    assert sizes["own"] < 0.7 * sizes["whole"]
    shared, complete = ControlNet.load(folders / "own"), ControlNet.load(folders / "whole")
    theirs = diffusers_state(complete)
    assert all(torch.equal(value, theirs[key]) for key, value in diffusers_state(shared).items())
    assert (
        shared.config["zeroconv"]["condition"] == "pose"
        and "shared" not in shared.config["zeroconv"]
    )


def test_conversion_gives_a_folder_that_stands_alone(folders):
    convert(folders / "own", folders / "alone", "diffusers")
    assert "shared" not in json.loads((folders / "alone" / "config.json").read_text())["zeroconv"]
    (folders / "shared").rename(folders / "gone")
    a, b = (diffusers_state(ControlNet.load(folders / name)) for name in ("alone", "whole"))
    assert all(torch.equal(a[key], b[key]) for key in b)
    with pytest.raises(UserError, match="beside it"):
        ControlNet.load(folders / "own")


def test_two_shapes_cannot_share(folders):
    other = ControlNet.from_backbone(tiny_backbone(), hint_widths=(4, 4, 8, 8))
    with pytest.raises(UserError, match="cannot share"):
        other.save(folders / "no", torch.float16, shared=folders / "shared")
