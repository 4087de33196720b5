"""What several tests of generation share."""

from __future__ import annotations

import pytest

from tests.helpers.tiny import tiny_backbone, tiny_unet


@pytest.fixture(scope="module")
def small():
    """A UNet of two levels that reads the text in the middle: many generations in seconds."""
    unet = tiny_unet(
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
    )
    return tiny_backbone(unet=unet)
