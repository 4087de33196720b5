"""At the size of Stable Diffusion 1.5 and 2.1, random weights, connections that are not zero (`make parity`).

One model at a time, about 7 GB in float32.
"""

from __future__ import annotations

import pytest
import torch

from tests.parity.compare import TOLERANCE, compare
from tests.stable_diffusion import SD15, SD21
from tests.tiny import randomise_
from zeroconv.backbones import TextStates, UNetBackbone
from zeroconv.control import ControlNet
from zeroconv.control.files import diffusers_state

pytestmark = pytest.mark.parity


@pytest.mark.parametrize(("config", "size"), [(SD15, 361_279_120), (SD21, 364_228_240)], ids=["sd15", "sd21"])
def test_residuals_and_output_equal_diffusers(config, size):
    from diffusers import ControlNetModel, UNet2DConditionModel

    torch.manual_seed(0)
    backbone = UNetBackbone(UNet2DConditionModel(**config), name="full size")
    control = randomise_(ControlNet.from_backbone(backbone), scale=0.03).requires_grad_(False)
    assert sum(p.numel() for p in control.parameters()) == size
    with torch.device("meta"):
        theirs = ControlNetModel.from_unet(backbone.unet, load_weights_from_unet=False)
    theirs.load_state_dict(diffusers_state(control), assign=True)  # the same memory: nothing is copied
    z, hint = torch.randn(1, 4, 32, 32), torch.rand(1, 3, 256, 256)
    text = TextStates(torch.randn(1, 77, config["cross_attention_dim"]))
    errors = compare(backbone, control, theirs.eval(), z, hint, torch.tensor([601]), text)
    print({name: f"{error:.1e}" for name, error in errors.items()})
    assert len(errors) == 14
    assert max(errors.values()) <= TOLERANCE, errors
