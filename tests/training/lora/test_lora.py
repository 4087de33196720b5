"""Fine-tuning a base: it learns, the base's own weights stay, and a run that was cut goes on as if
it had not been.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from zeroconv.backbones import load_backbone
from zeroconv.checkpoints.lora import FILE
from zeroconv.checkpoints.reading import read_state_dict
from zeroconv.errors import UserError
from zeroconv.training.lora import train_lora
from zeroconv.training.lora.adapter import add_adapter, lora_state
from zeroconv.training.lora.trainer import LoraTrainer
from zeroconv.training.recipes.lora import LoraRecipe, LoraSettings
from zeroconv.training.recipes.recipe import load_recipe
from zeroconv.training.recipes.settings import check_recipe
from zeroconv.training.recipes.text import read_recipe
from zeroconv.training.run import train_command


@pytest.fixture
def make(base: Path, pictures: Path, tmp_path: Path):
    def recipe(out: str = "run", **training) -> LoraRecipe:
        values = {
            "out": str(tmp_path / out),
            "base": str(base),
            "device": "cpu",
            "lora": {"rank": 4},
            "data": {
                "train": str(pictures),
                "size": 64,
                "cache": str(tmp_path / "cache"),
                "validation_count": 6,
            },
            "training": {
                "steps": 6,
                "batch_size": 2,
                "learning_rate": 1e-3,
                "validate_every": 0,
                "sample_count": 0,
            }
            | {"ema_decay": 0.5, "export": "float32"}
            | training,
        }
        return check_recipe(LoraRecipe, values, "test")

    return recipe


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_state_dict(folder / "lora" / FILE)


def plain_middle(base: str) -> torch.Tensor:
    return load_backbone(base).unet.mid_block.resnets[0].conv1.weight


@pytest.mark.slow
def test_it_learns_and_says_so(make, tmp_path):
    lines = []
    recipe = make(steps=60, batch_size=4, validate_every=30, sample_count=2, sample_steps=2)
    folder = train_lora(recipe, say=lines.append)
    history = json.loads((folder / "summary.json").read_text())["validation"]
    assert [line["step"] for line in history] == [0, 30, 60]
    assert history[-1]["loss"] < 0.95 * history[0]["loss"]
    assert (folder / "samples" / "step-00000060.png").is_file() and lines[-1].startswith("finished")
    backbone = load_backbone(folder / "lora")  # the folder names its base
    assert not torch.equal(
        backbone.unet.mid_block.resnets[0].conv1.weight, plain_middle(recipe.base)
    )
    assert all(name.startswith("unet.") and ".lora_" in name for name in weights(folder))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_run_that_was_cut_goes_on_bit_for_bit(make, monkeypatch, precision):
    settings = {"checkpoint_every": 3, "precision": precision}
    straight = weights(train_lora(make("whole", **settings)))
    step = LoraTrainer._train_step

    def crash(self, micro):
        if self.step == 4:
            raise RuntimeError("power cut")
        return step(self, micro)

    monkeypatch.setattr(LoraTrainer, "_train_step", crash)
    with pytest.raises(RuntimeError, match="power cut"):
        train_lora(make("cut", **settings))
    monkeypatch.setattr(LoraTrainer, "_train_step", step)
    lines = []
    resumed = weights(train_lora(make("cut", **settings), say=lines.append))
    assert "going on from step 3 of 6" in lines
    assert straight.keys() == resumed.keys() and all(
        torch.equal(straight[name], resumed[name]) for name in straight
    )


@pytest.mark.slow
def test_broken_pictures_are_listed(make, pictures, tmp_path):
    folder = shutil.copytree(pictures, tmp_path / "copy")
    (folder / "3.png").write_bytes(b"oops")
    recipe = make(steps=1)
    recipe = recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"train": (str(folder),)})}
    )
    out = train_lora(recipe)
    assert list(json.loads((out / "broken.json").read_text())) == ["3.png"]
    assert json.loads((out / "summary.json").read_text())["broken"] == 1


def test_lora_leaves_the_base_s_weights_and_begins_as_nothing(base):
    backbone = load_backbone(base)
    z, t, text = torch.randn(1, 4, 8, 8), torch.tensor([500]), backbone.embed_text(["a"])
    before = backbone.decode(backbone.encode(z, t, text), t, text)
    frozen = {name: value.clone() for name, value in backbone.unet.state_dict().items()}
    add_adapter(backbone, LoraSettings(rank=4))
    after = backbone.decode(backbone.encode(z, t, text), t, text)
    # zeros are added, in another memory layout
    torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-6)
    for name, value in backbone.unet.state_dict().items():
        if "lora_" not in name:
            assert torch.equal(value, frozen[name.replace(".base_layer", "")])
    trained = {name for name, p in backbone.unet.named_parameters() if p.requires_grad}
    assert (
        trained
        and all("lora_" in name for name in trained)
        and len(trained) == len(lora_state(backbone))
    )


def test_layers_are_chosen_by_kind(base):
    backbone = load_backbone(base)
    add_adapter(backbone, LoraSettings(rank=4, layers=("attention",)))
    assert {name.split(".lora_")[0].rpartition("attn")[2][2:] for name in lora_state(backbone)} == {
        "to_q", "to_k", "to_v", "to_out.0",
    }  # fmt: skip


@pytest.mark.slow
def test_a_loss_that_breaks_down_returns_to_a_checkpoint(make, monkeypatch):
    gradients = LoraTrainer._gradients

    def breaks(self, micro):
        return (
            float("nan") if self.rollbacks == 0 and 4 <= self.step < 9 else gradients(self, micro)
        )

    monkeypatch.setattr(LoraTrainer, "_gradients", breaks)
    lines = []
    folder = train_lora(make(checkpoint_every=4, steps=12), say=lines.append)
    assert sum("back to step 8 at half" in line for line in lines) == 1
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 12 and last["lr"] == pytest.approx(1e-3 / 2)


def test_a_loss_that_is_no_number_ends_the_run(make, monkeypatch):
    monkeypatch.setattr(LoraTrainer, "_gradients", lambda self, micro: float("nan"))
    with pytest.raises(UserError, match=r"lower training\.learning_rate"):
        train_lora(make())


def test_the_train_command_tells_the_two_kinds_apart(make, tmp_path):
    recipe = make()
    path = tmp_path / "lora.yaml"
    path.write_text(json.dumps(recipe.model_dump(mode="json")))
    folder = train_command(path, ["training.steps=2"])
    assert (folder / "lora" / FILE).is_file() and not (folder / "control").exists()
    with pytest.raises(UserError, match=r"data\.condition is missing"):
        load_recipe(path)
    with pytest.raises(UserError, match="did you mean rank"):
        check_recipe(LoraRecipe, read_recipe(path, ["lora.rang=3"]), "test")
    with pytest.raises(UserError, match="a LoRA has none"):
        check_recipe(
            LoraRecipe,
            read_recipe(
                path, ["training.on_convergence=stop_after=3", "training.validate_every=1"]
            ),
            "test",
        )


@pytest.mark.slow
def test_computing_again_changes_nothing(make) -> None:
    lines: list[str] = []
    plain, again = (
        train_lora(make(name, checkpointing=name), say=lines.append) for name in ("none", "full")
    )
    assert sum("parts are computed again" in line for line in lines) == 1
    a, b = weights(plain), weights(again)
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
