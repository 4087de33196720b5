from __future__ import annotations

import pytest

from tests.helpers.tiny import inputs, randomise_, tiny_backbone, tiny_backbone_xl, tiny_unet
from tests.parity.compare import TOLERANCE, compare
from zeroconv.control import ControlNet
from zeroconv.control.files import diffusers_state


def linear():
    """SD 2.x's way: linear projections, heads by level, v-prediction."""
    unet = tiny_unet(
        use_linear_projection=True, attention_head_dim=(1, 2, 2, 4), upcast_attention=True
    )
    return tiny_backbone("v_prediction", unet=unet)


def playroom():
    """The embedded base's way: attention at the two middle sizes only."""
    down = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")
    up = ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")
    return tiny_backbone(unet=tiny_unet(down_block_types=down, up_block_types=up))


@pytest.mark.parametrize("make", [tiny_backbone, linear, playroom, tiny_backbone_xl])
@pytest.mark.parametrize("pooling", [False, True])
def test_residuals_and_output_equal_diffusers(make, pooling, tmp_path):
    from diffusers import ControlNetModel

    backbone = make()
    control = randomise_(
        ControlNet.from_backbone(backbone, global_average_pooling=pooling), scale=0.3
    )
    theirs = ControlNetModel.from_unet(backbone.unet)
    theirs.register_to_config(global_pool_conditions=pooling)
    theirs.load_state_dict(diffusers_state(control))
    errors = compare(backbone, control, theirs, *inputs(backbone))
    assert len(errors) == len(backbone.connections) + 1
    assert max(errors.values()) <= TOLERANCE, errors
