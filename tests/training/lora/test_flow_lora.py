"""LoRAs of diffusion transformers: they alone train, and diffusers reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers import tiny_flow
from tests.training.conftest import make_pictures
from zeroconv.backbones import TextStates, load_backbone
from zeroconv.checkpoints.lora import FILE
from zeroconv.errors import UserError
from zeroconv.training.lora import train_lora
from zeroconv.training.lora.adapter import add_adapter
from zeroconv.training.recipes.lora import LoraRecipe, LoraSettings
from zeroconv.training.recipes.settings import check_recipe

FAMILIES = [
    name if name == "flux" else pytest.param(name, marks=pytest.mark.slow)
    for name in tiny_flow.WRITERS
]


@pytest.mark.filterwarnings("ignore:T5 reads")
@pytest.mark.parametrize("name", FAMILIES)
def test_lora_of_a_transformer_trains_goes_on_and_loads_in_diffusers(
    tmp_path: Path, name: str
) -> None:
    base = tiny_flow.WRITERS[name](tmp_path / name, scale=None)
    (tmp_path / "pictures").mkdir()
    make_pictures(tmp_path / "pictures", 24, 32)

    def run(out: str, steps: int) -> dict[str, torch.Tensor]:
        data = {"train": str(tmp_path / "pictures"), "size": 32, "validation_count": 4}
        training = {"steps": steps, "batch_size": 2, "learning_rate": 1e-2, "ema_decay": 0.5}
        training |= {"validate_every": 2, "sample_count": 1, "sample_steps": 2}
        training |= {"export": "float32", "checkpoint_every": 2}
        values = {
            "out": str(tmp_path / out),
            "base": str(base),
            "device": "cpu",
            "lora": {"rank": 4},
            "data": {**data, "cache": str(tmp_path / "cache"), "workers": 1},
            "training": training,
        }
        folder = train_lora(check_recipe(LoraRecipe, values, "test"), say=lambda line: None)
        return load_file(folder / "lora" / FILE)

    state = run("straight", 4)
    run("stopped", 2)
    stopped = run("stopped", 4)
    assert all(torch.equal(state[key], stopped[key]) for key in state)
    assert all(key.startswith("transformer.") and ".lora_" in key for key in state)
    assert max(float(v.abs().max()) for k, v in state.items() if ".lora_B." in k) > 1e-3

    backbone: Any = load_backbone(base)
    z, _, t = tiny_flow.inputs()
    width = 32 if name == "sd3" else 24
    pooled = {"sd3": torch.randn(2, 32), "flux": torch.randn(2, 16)}.get(name)
    text = TextStates(torch.randn(2, 8, width), pooled)
    with torch.no_grad():
        before = backbone.predict(z, t, text)
        backbone.denoiser.load_lora_adapter(state, prefix="transformer")
        beside = backbone.predict(z, t, text)
        assert not torch.allclose(before, beside, atol=1e-5)
        merged = load_backbone(tmp_path / "straight" / "lora")  # the folder names its base
        torch.testing.assert_close(merged.predict(z, t, text), beside, rtol=1e-3, atol=1e-4)


def test_layers_that_a_transformer_has_not_are_refused(tmp_path: Path) -> None:
    backbone: Any = load_backbone(tiny_flow.write_flux(tmp_path / "flux"))
    with pytest.raises(UserError, match="write attention and linear"):
        add_adapter(backbone, LoraSettings(layers=("convolutions",)))
