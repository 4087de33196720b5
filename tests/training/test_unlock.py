"""The unlocked decoder: what trains and how fast, that nothing of it is lost in a stop, and the
base that comes out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.tiny import inputs, tiny_backbone, tiny_backbone_xl
from tests.helpers.tiny_folder import save_backbone
from zeroconv.backbones import UNetBackbone, load_backbone
from zeroconv.baselines import make_baseline
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.optim.ema import Ema
from zeroconv.training import train, trainer
from zeroconv.training.assembling import make_control
from zeroconv.training.checkpoint import checkpoints
from zeroconv.training.loop import Loop
from zeroconv.training.measuring.validation import Validator
from zeroconv.training.recipes.recipe import Recipe, parse_recipe
from zeroconv.training.trainer import Trainer
from zeroconv.training.unlock import save_base, unlock_

Make = Callable[..., Recipe]
UNLOCKED = {"control.unlock_decoder": True}
SOON = {"ema_decay": 0.0, **UNLOCKED}  # the average is the newest weights


def is_decoder(name: str) -> bool:
    return name.startswith(("up_blocks.", "conv_norm_out.", "conv_out."))


def silent(line: str) -> None:
    pass


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Trainer]:
    """The trainers of the runs of a test."""
    seen: list[Trainer] = []
    init = Trainer.__init__

    def remember(self, *rest, **more) -> None:
        init(self, *rest, **more)
        seen.append(self)

    monkeypatch.setattr(Trainer, "__init__", remember)
    return seen


def test_the_decoder_trains_and_nothing_else_of_the_base(recipe: Make) -> None:
    settings = recipe(**SOON)
    folder = train(settings, say=silent)
    before, after = (
        load_backbone(settings.base).unet.state_dict(),
        load_backbone(folder / "base").unet.state_dict(),
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if is_decoder(name)}


@pytest.mark.slow
def test_unlocked_run_writes_a_complete_base(recipe: Make, trained: list[Trainer]) -> None:
    """Read back, base and control predict what the run's own did; everything but the decoder is the
    recipe's base.
    """
    settings = recipe(**SOON)
    folder = train(settings, say=silent)
    old, new = load_backbone(settings.base), load_backbone(folder / "base")
    control = ControlNet.load(folder / "control", backbone=new)
    assert control.config["zeroconv"]["base"] == str(folder / "base")
    assert json.loads((folder / "summary.json").read_text())["base"] == str(folder / "base")
    z, hint, t, text = inputs(new)

    def predicted(backbone: UNetBackbone, control) -> torch.Tensor:
        skips = backbone.encode(z, t, text)
        return backbone.decode(
            [s + r for s, r in zip(skips, control(z, hint, t, text), strict=True)], t, text
        )

    with torch.no_grad():
        assert torch.allclose(
            predicted(new, control), predicted(trained[0].backbone, trained[0].control), atol=1e-6
        )
        assert not torch.allclose(predicted(new, control), predicted(old, control), atol=1e-3)
    assert torch.equal(old.embed_text(["a"]).hidden, new.embed_text(["a"]).hidden)
    assert old.scheduler_config == new.scheduler_config
    for ours, theirs in zip(
        old.vae.state_dict().values(), new.vae.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiny_backbone, tiny_backbone_xl])
def test_diffusers_reads_the_base_too(make: Callable[[], UNetBackbone], tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    backbone = save_backbone(tmp_path / "old", make())
    wanted = {"conv_out.bias": torch.arange(4.0)}
    save_base(str(tmp_path / "old"), wanted, tmp_path / "new", torch.float32)
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "new", local_files_only=True)
    assert type(pipeline).__name__ == f"StableDiffusion{'XL' * (make is tiny_backbone_xl)}Pipeline"
    assert torch.equal(pipeline.unet.conv_out.bias, wanted["conv_out.bias"])
    assert torch.equal(pipeline.unet.conv_in.weight, backbone.unet.conv_in.weight)
    again = load_backbone(tmp_path / "new").embed_text(["a", "b"])
    assert torch.equal(again.hidden, backbone.embed_text(["a", "b"]).hidden)


@pytest.mark.slow
def test_the_file_that_the_base_came_from_stays(recipe: Make, base: Path) -> None:
    path = base / "unet" / "diffusion_pytorch_model.safetensors"
    before = path.read_bytes()
    train(recipe(**SOON), say=silent)
    assert path.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_parameter_groups_keep_separate_rates(
    optimizer: str, recipe: Make, trained: list[Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through warm-up, cosine, and what the recipe does after convergence; every parameter in one
    group.
    """
    rates: list[tuple[float, ...]] = []
    step = Loop._train_step

    def record(self, micro):
        if self.step == 4:
            self.converged = {"seen": 4}
        result = step(self, micro)
        rates.append(
            (self.learning_rate(), *(group["lr"] for group in self.optimizer.param_groups))
        )
        return result

    monkeypatch.setattr(Loop, "_train_step", record)
    changes = {
        "optimizer": optimizer,
        "schedule": "cosine",
        "warmup": 2,
        "on_convergence": "lower_lr=0.5",
        **UNLOCKED,
    }
    changes["validate_every"] = 100  # what acts on convergence needs measurements
    train(recipe(decoder_learning_rate=2e-4, **changes), say=silent)  # the control's is 1e-3
    run, half = trained[0], len(rates[0]) // 2
    assert (
        len(rates) == 6
        and len({rate[0] for rate in rates}) == 6
        and rates[4][0] < 0.6 * rates[3][0]
    )
    for rate, *groups in rates:
        assert groups[:half] == [rate] * half
        assert groups[half:] == pytest.approx([0.2 * rate] * half)
    grouped = [p for group in run.optimizer.param_groups for p in group["params"]]
    assert len(grouped) == len(run.parameters) and {id(p) for p in grouped} == {
        id(p) for p in run.parameters
    }
    assert {id(p) for p in run.decoder.parameters()} <= {id(p) for p in run.ema.parameters}


def test_a_tenth_is_the_default(recipe: Make, trained: list[Trainer]) -> None:
    train(recipe(steps=1, **UNLOCKED), say=silent)
    assert [group["lr"] for group in trained[0].optimizer.param_groups] == pytest.approx(
        [1e-3, 1e-4]
    )


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_that_was_cut_goes_on_bit_for_bit(
    optimizer: str, recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "steps": 7,
        "checkpoint_every": 2,
        "optimizer": optimizer,
        "accumulation": 2,
        **UNLOCKED,
    }
    straight = train(recipe(out=str(tmp_path / "straight"), **settings), say=silent)
    step = Trainer._train_step

    def crash(self, micro):
        if self.step == 5:
            raise RuntimeError("power cut")
        return step(self, micro)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(Trainer, "_train_step", crash)
        train(recipe(out=str(tmp_path / "cut"), **settings), say=silent)
    lines: list[str] = []
    cut = train(recipe(out=str(tmp_path / "cut"), **settings), say=lines.append)
    assert "going on from step 4 of 7" in lines
    for part in ("control", "base/unet"):
        a, b = (
            load_file(run / part / "diffusion_pytorch_model.safetensors") for run in (straight, cut)
        )
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a), part
    a, b = (
        torch.load(checkpoints(run / "checkpoints")[0], weights_only=True)
        for run in (straight, cut)
    )
    for part in ("control", "decoder"):
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part]), part
    for ours, theirs in zip(
        a["optimizer"]["state"].values(), b["optimizer"]["state"].values(), strict=True
    ):
        assert all(torch.equal(torch.as_tensor(ours[k]), torch.as_tensor(theirs[k])) for k in ours)


@pytest.mark.slow
def test_bfloat16_leaves_what_trains_in_float32(recipe: Make, trained: list[Trainer]) -> None:
    settings = recipe(precision="bf16", **SOON)
    folder = train(settings, say=silent)
    for name, parameter in trained[0].backbone.unet.named_parameters():
        assert parameter.dtype == (torch.float32 if is_decoder(name) else torch.bfloat16), name
    before, after = (
        load_backbone(settings.base).unet.state_dict(),
        load_backbone(folder / "base").unet.state_dict(),
    )
    # not rounded
    assert all(torch.equal(before[name], after[name]) for name in before if not is_decoder(name))
    moved = after["conv_out.weight"] - before["conv_out.weight"]
    assert 0 < moved.abs().max() < 1e-2
    assert not torch.equal(after["conv_out.weight"], after["conv_out.weight"].bfloat16().float())


@pytest.mark.slow
def test_the_loss_without_control_is_measured_anew(recipe: Make) -> None:
    settings = {"steps": 24, "batch_size": 8, "validate_every": 12, "ema_decay": 0.5}

    def without_control(run: Path) -> list[float]:
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        return [line["validation"]["none"] for line in lines if "validation" in line]

    unlocked = recipe(decoder_learning_rate=1e-3, **settings, **UNLOCKED)
    first, second, third = without_control(train(unlocked, say=silent))
    assert first > second > third and third < 0.95 * first
    locked = without_control(train(recipe(out=f"{unlocked.out}-locked", **settings), say=silent))
    assert locked == [first] * 3


@pytest.mark.slow
def test_measures_and_sheets_see_the_averaged_decoder(
    recipe: Make, trained: list[Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def look(*rest) -> None:
        run = trained[0]
        n = len(list(run.decoder.parameters()))
        pairs = zip(list(run.ema.parameters)[-n:], average, strict=True)
        seen.append(all(torch.equal(p, a) for p, a in pairs))

    average: list[torch.Tensor] = []
    swap = Ema._swap

    def note(self, other: list[torch.Tensor]) -> None:
        n = len(list(trained[0].decoder.parameters()))
        average[:] = [a.clone() for a in other[-n:]]
        swap(self, other)

    measure = Validator.measure
    monkeypatch.setattr(Ema, "_swap", note)
    monkeypatch.setattr(Validator, "measure", lambda self: (look(), measure(self))[1])
    monkeypatch.setattr(trainer, "sample_grid", look)
    train(recipe(validate_every=3, sample_count=1, sample_steps=1, **UNLOCKED), say=silent)
    assert len(seen) == 4 and all(seen)


@pytest.mark.slow
def test_best_checkpoint_has_the_base_of_its_step(
    recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is made to be lowest in the middle."""
    measure = Validator.measure
    falls = iter([3.0, 2.0, 1.0, 4.0])

    monkeypatch.setattr(Validator, "measure", lambda self: replace(measure(self), true=next(falls)))
    folder = train(recipe(validate_every=2, checkpoint_every=2, **SOON), say=silent)
    best = torch.load(next((folder / "checkpoints").glob("step-00000004-*")), weights_only=True)[
        "decoder"
    ]
    state = load_backbone(folder / "best-base").unet.state_dict()
    last = load_backbone(folder / "base").unet.state_dict()
    for name, value in best.items():
        assert torch.allclose(state[name], value, atol=1e-7)
    assert not torch.equal(last["conv_out.weight"], state["conv_out.weight"])
    assert ControlNet.load(folder / "best").config["zeroconv"]["base"] == str(folder / "best-base")


@pytest.mark.slow
def test_going_on_unlocked_from_a_control_that_was_trained_locked(
    recipe: Make, tmp_path: Path
) -> None:
    """As the released code advises: the last steps of a long training."""
    first = train(recipe(), say=silent)
    control = {"init": str(first / "control"), "unlock_decoder": True}
    second = train(recipe(out=str(tmp_path / "second"), steps=2, control=control), say=silent)
    assert (second / "base" / "model_index.json").is_file()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"control": {"kind": "t2i_adapter", "unlock_decoder": True}},
            "a t2i_adapter is measured around a base that",
        ),
        ({"training": {"steps": 3, "decoder_learning_rate": 1e-6}}, "needs control.unlock_decoder"),
        (
            {"training": {"steps": 3, "decoder_learning_rate": 0}},
            "training.decoder_learning_rate is 0",
        ),
    ],
)
def test_what_does_not_go_together_is_one_sentence(changes: dict, sentence: str) -> None:
    least = {"out": "x", "data": {"train": "x", "condition": "canny"}, "training": {"steps": 3}}
    with pytest.raises(UserError, match=sentence) as caught:
        parse_recipe({**least, **changes})
    assert "\n" not in str(caught.value)


def test_a_baseline_to_go_on_from_is_refused(recipe: Make, tmp_path: Path) -> None:
    backbone = tiny_backbone("v_prediction")
    make_baseline("side", backbone, ratio=0.5, condition="depth").save(tmp_path / "baseline")
    settings = recipe(control={"init": str(tmp_path / "baseline"), "unlock_decoder": True})
    with pytest.raises(UserError, match=r"leave control\.unlock_decoder out"):
        unlock_(backbone, make_control(settings, backbone))
