"""The loop learns from hints, and goes on after any stop as if nothing had happened."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers.tiny import tiny_backbone
from tests.training.conftest import build
from zeroconv.control import ControlNet
from zeroconv.data.cache.examples import Examples, Table
from zeroconv.data.cache.text import cache_text
from zeroconv.errors import UserError
from zeroconv.layers import allocator
from zeroconv.layers.quantised import QuantisedLayer
from zeroconv.training.checkpoint import checkpoints
from zeroconv.training.objective import ControlledLoss
from zeroconv.training.recipes.recipe import parse_recipe
from zeroconv.training.reporting.reporter import Reporter
from zeroconv.training.trainer import Trainer


def blocks(backbone, n: int, seed: int, folder: Path, blind: bool = False) -> Examples:
    """Latents of two by two blocks, +1 or −1, that the hint shows; `blind`: that it does not
    show.
    """
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (n, 2, 2)).astype(np.float32)
    z = np.kron(2 * bits - 1, np.ones((4, 4), np.float32))[:, None].repeat(4, axis=1)
    moments = np.concatenate([z / backbone.vae.config.scaling_factor, np.full_like(z, -30)], axis=1)
    hints = (
        np.kron(rng.integers(0, 2, (n, 2, 2)) if blind else bits, np.ones((32, 32))) * 255
    ).astype(np.uint8)
    table = cache_text(backbone, [("a", "b")], folder)
    return Examples(Table([moments]), None, Table([hints]), [(1, 2)] * n, np.zeros(n, bool), table)


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """`trainer(steps=20)`: training settings by name. Every call builds everything anew, as a new
    process would.
    """

    def make(
        out: str = "run", blind: bool = False, reporters: tuple[Reporter, ...] = (), **settings
    ) -> Trainer:
        values = {
            "steps": 6,
            "batch_size": 4,
            "learning_rate": 3e-3,
            "validate_every": 0,
            "sample_count": 0,
            **settings,
        }
        recipe = parse_recipe(
            {
                "out": str(tmp_path / out),
                "data": {"train": "x", "condition": "depth"},
                "training": values,
            }
        )
        torch.manual_seed(0)
        backbone = tiny_backbone("v_prediction")
        data, held = (blocks(backbone, n, n, tmp_path / "cache", blind) for n in (64, 16))
        new = ControlNet.from_backbone(backbone, condition="depth", hint_widths=(4, 8, 8, 8))
        return build(recipe, backbone, new, data, held, reporters=reporters)

    return make


def weights(trainer: Trainer) -> list[Tensor]:
    """Everything that a step changes: weights, average, both moments of the optimiser."""
    state = trainer.optimizer.state_dict()["state"]
    moments = [state[i][name] for i in sorted(state) for name in ("exp_avg", "exp_avg_sq", "step")]
    return [
        t.detach().clone()
        for t in (*trainer.control.state_dict().values(), *trainer.ema.average, *moments)
    ]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_hint_is_learned(trainer) -> None:
    run = trainer(steps=24, batch_size=8, validate_every=24, ema_decay=0.9)
    frozen = [p.clone() for p in run.backbone.unet.parameters()]
    assert run.run() == "finished"
    first, last = (line["validation"] for line in run.log.read() if "validation" in line)
    assert first["true"] == first["shuffled"] == first["none"]  # zero convolutions add nothing
    assert last["true"] < 0.75 * first["true"]
    assert last["gain"] > 0.3
    assert last["gain"] > 4 * last["gain_error"]
    assert last["none"] == first["none"]
    assert equal(frozen, list(run.backbone.unet.parameters()))


def test_a_hint_that_says_nothing_gains_nothing(trainer) -> None:
    """The measure must not find what is not there."""
    run = trainer(steps=24, batch_size=8, validate_every=24, ema_decay=0.9, blind=True)
    run.run()
    assert run.last is not None
    assert abs(run.last["gain"]) < max(0.05, 3 * run.last["gain_error"])


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.slow)])
def test_resuming_is_never_having_stopped(trainer, precision: str) -> None:
    """Stopped between two checkpoints, twice; with accumulation, so that the place in the data
    matters.
    """
    settings = {
        "steps": 7,
        "accumulation": 2,
        "warmup": 3,
        "schedule": "cosine",
        "checkpoint_every": 2,
    }
    settings["precision"] = precision
    straight = trainer("straight", **settings)
    orders = record(straight)
    straight.run()
    seen: dict[int, list[int]] = {}
    for stop in (3, 6, None):
        part = trainer("parts", **settings)
        assert part.resume() == (stop != 3)
        taken = record(part)
        if stop is None:
            assert part.run() == "finished"
        else:
            with pytest.raises(Killed):
                die_at(part, stop)
        seen.update(taken)
    assert equal(weights(straight), weights(part))
    assert seen == orders
    assert losses(straight) == losses(part)
    if straight.execution.scaler is not None:
        assert (
            straight.execution.scaler.state_dict() == part.execution.scaler.state_dict()
            and part.execution.scaler._growth_tracker == 7
        )


def losses(run: Trainer) -> list:
    return [(line["step"], line["loss"]) for line in run.log.read() if "loss" in line]


class Killed(BaseException):
    """What a `kill -9` does to a process: no handler runs."""


def die_at(run: Trainer, step: int) -> None:
    original = run._train_step

    def train_step(micro):
        if run.step == step:
            raise Killed
        return original(micro)

    run._train_step = train_step  # type: ignore[method-assign]
    run.run()


def record(run: Trainer) -> dict[int, list[int]]:
    """Which examples each step has taken."""
    taken, original = {}, run._train_step

    def train_step(micro):
        taken[run.step] = [int(i) for batch in micro for i in batch.indices]
        return original(micro)

    run._train_step = train_step  # type: ignore[method-assign]
    return taken


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends(trainer, number: signal.Signals) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    run = trainer(steps=500, checkpoint_every=500)
    original = run._train_step

    def train_step(micro):
        if run.step == 2:
            signal.raise_signal(number)
        return original(micro)

    run._train_step = train_step  # type: ignore[method-assign]
    assert run.run() == "interrupted"
    assert run.step == 3
    assert [path.name[:13] for path in checkpoints(run.folder / "checkpoints")] == ["step-00000003"]
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers


def test_a_loss_that_is_no_number_leaves_the_weights(
    trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(steps=20)
    before = weights(run)
    monkeypatch.setattr(
        ControlledLoss,
        "errors",
        lambda self, z, *rest, **options: z.mean(dim=(1, 2, 3)) * float("nan") * sum_(self),
    )
    with pytest.raises(UserError, match="no number for 5 steps"):
        run.run()
    assert equal(before, weights(run))
    assert sum(line.get("event") == "skipped" for line in run.log.read()) == 5


def sum_(loss: ControlledLoss) -> Tensor:
    return torch.stack([p.sum() for p in loss.control.parameters()]).sum()


def test_accumulation_is_a_larger_batch(trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two micro-batches of 4 give the gradient of one of 8, when the noise is the same."""

    def errors(self, z, noise, t, hints, text, control=True, dtype=None):
        t, noise = torch.full_like(t, 500), torch.ones_like(noise)
        return original(self, z.detach() * 0 + 1, noise, t, hints, text, control)

    original = ControlledLoss.errors
    monkeypatch.setattr(ControlledLoss, "errors", errors)
    two = trainer("two", steps=1, batch_size=4, accumulation=2, prompt_dropping=1)
    one = trainer("one", steps=1, batch_size=8, prompt_dropping=1)
    for run in (one, two):
        run.run()
    assert all(
        torch.allclose(a, b, atol=2e-5)
        for a, b in zip(one.ema.average, two.ema.average, strict=True)
    )


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"accumulation": 2}, marks=SLOW),
        pytest.param({"checkpointing": "full"}, marks=SLOW),
    ],
)
def test_gradients_that_keep_their_memory_change_no_weight(
    trainer, settings: dict, monkeypatch
) -> None:
    """Step after step, added up, and after a loss that is no number; not where memory is to be
    spared.
    """
    spoilt, original = [False], ControlledLoss.errors
    monkeypatch.setattr(
        ControlledLoss,
        "errors",
        lambda self, *words, **options: (
            original(self, *words, **options) * (float("nan") if spoilt[0] else 1)
        ),
    )
    ends = []
    for mapped in (2**25, 2**10):
        monkeypatch.setattr(allocator, "MAPPED", mapped)
        run = trainer(str(mapped), steps=5, checkpoint_every=10, **settings)
        kept = [p for p in run.control.parameters() if hasattr(p, "kept_gradient")]
        assert bool(kept) is (mapped == 2**10 and "checkpointing" not in settings)
        step = run._train_step

        def train_step(micro, run=run, step=step):
            spoilt[0] = run.step == 2 and run.skipped == 0
            return step(micro)

        run._train_step = train_step
        run.run()
        assert sum(line.get("event") == "skipped" for line in run.log.read()) == 1
        assert all(p.kept_gradient[0] is not None for p in kept)
        ends.append(weights(run))
    assert equal(*ends)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_sixteen_bits_follow_float32(trainer, precision: str, dtype: torch.dtype) -> None:
    runs = [trainer(name, steps=4, log_every=1, precision=name) for name in ("fp32", precision)]
    for run in runs:
        run.run()
    assert runs[1].backbone.unet.conv_in.weight.dtype == dtype
    assert next(runs[1].control.parameters()).dtype == torch.float32
    for (step, a), (_, b) in zip(losses(runs[0]), losses(runs[1]), strict=True):
        assert b == pytest.approx(a, rel=0.03), step


def test_gradients_that_overflow_float16_halve_the_scale_and_leave_the_weights(trainer) -> None:
    run = trainer(steps=8, log_every=1, precision="fp16")
    run.execution.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100)
    before = [p.clone() for p in run.control.parameters()]
    run.run()
    scales = [line["scale"] for line in run.log.read() if line.get("event") == "overflow"]
    # more in a row than losses that are no numbers may be
    assert scales == [2.0**n for n in range(100, 92, -1)]
    assert run.execution.scaler.get_scale() == 2.0**92 and run.skipped == run.rollbacks == 0
    assert equal(before, list(run.control.parameters())) and not run.optimizer.state
    # it cannot be the scale's doing any more
    run.execution.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    run.parameters[0].register_hook(lambda gradient: gradient * float("inf"))
    run._train_step([next(run.plan.from_step(0))])
    assert run.skipped == 1


def test_a_small_gradient_survives_float16(trainer, monkeypatch) -> None:
    """Scaled by its loss to where float16 has nothing, it is lost without the scale."""
    sums = {}
    for name, scaled in (("with", True), ("without", False)):
        run = trainer(name, precision="fp16")
        if not scaled:
            run.execution.scaler = None
        batch = next(run.plan.from_step(0))
        make = run.loss.forward
        monkeypatch.setattr(run.loss, "forward", lambda *a, make=make: make(*a) * 1e-7)
        run._gradients([batch])
        if scaled:
            run.execution.scaler.unscale_(run.optimizer)
        convs = run.control.zero_convs
        sums[name] = sum(float(conv.weight.grad.abs().sum()) for conv in convs)
    assert sums["without"] < 0.9 * sums["with"]


@pytest.fixture
def narrow_weights(monkeypatch) -> dict:
    """Settings of a run whose weights are bfloat16, down to those that a tiny model has."""
    monkeypatch.setattr("zeroconv.optim.split_weights.LEAST", 4096)
    monkeypatch.setattr("zeroconv.optim.adamw8bit.can_compile", lambda device: False)
    return {"precision": "bf16_weights", "optimizer": "adamw8bit"}


def test_bfloat16_weights_follow_float32(trainer, narrow_weights) -> None:
    runs = [
        trainer("fp32", steps=6, log_every=1),
        trainer("narrow", steps=6, log_every=1, **narrow_weights),
    ]
    for run in runs:
        run.run()
    for model in (runs[1].control, runs[1].backbone.unet):
        assert torch.bfloat16 in {p.dtype for p in model.parameters()}
    for (step, a), (_, b) in zip(losses(runs[0]), losses(runs[1]), strict=True):
        assert b == pytest.approx(a, rel=0.01), step
    runs[1].export(runs[1].folder / "control")
    saved = ControlNet.load(runs[1].folder / "control").state_dict()
    with runs[1].ema.swapped():
        for name, value in runs[1].control.state_dict().items():
            assert value.dtype == saved[name].dtype == torch.float32
            assert torch.equal(value, saved[name])  # all of the weight, not its bfloat16 half


def test_a_run_with_bfloat16_weights_goes_on_bit_for_bit(trainer, narrow_weights) -> None:
    straight = trainer("whole", steps=6, **narrow_weights)
    straight.run()
    first = trainer("cut", steps=6, checkpoint_every=2, **narrow_weights)
    with pytest.raises(Killed):
        die_at(first, 3)
    second = trainer("cut", steps=6, checkpoint_every=2, **narrow_weights)
    assert second.resume() and second.step == 2
    second.run()
    left, right = straight.state(), second.state()
    for name in ("control", "ema", "optimizer"):
        a, b = (torch.utils._pytree.tree_leaves(one[name]) for one in (left, right))
        assert len(a) == len(b) > 20
        assert all(
            torch.equal(x, y) if torch.is_tensor(x) else x == y for x, y in zip(a, b, strict=True)
        ), name


def test_pictures_with_bfloat16_weights(trainer, narrow_weights) -> None:
    run = trainer(
        "pictures", steps=1, sample_count=2, sample_steps=2, validate_every=1, **narrow_weights
    )
    assert run.run() == "finished"
    assert list((run.folder / "samples").glob("*.png"))


def test_time_ends_a_run(trainer) -> None:
    before = threading.active_count()  # other tests of this process may have left some
    run = trainer(steps=10_000, max_minutes=0.5 / 60)
    assert run.run() == "finished"
    assert 0 < run.step < 1000
    again = trainer(steps=10_000, max_minutes=0.5 / 60)
    assert again.resume() and again.run() == "finished" and again.step == run.step
    assert threading.active_count() <= before + 2  # readers end with their runs


def test_the_log_stands_once_for_every_step(trainer) -> None:
    run = trainer(steps=6, log_every=1, checkpoint_every=4)
    with pytest.raises(Killed):
        die_at(run, 5)
    with run.log.path.open("a") as file:
        file.write('{"step": 5, "lo')  # cut by the crash
    again = trainer(steps=6, log_every=1, checkpoint_every=4)
    assert again.resume()
    again.run()
    lines = [json.loads(line) for line in run.log.path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "samples_per_second", "wait", "lr", "gradient", "seconds"} <= set(lines[0])


@pytest.mark.slow
@pytest.mark.parametrize("second", ["full", "16MB"])
def test_a_run_may_go_on_with_less_memory(trainer, second: str) -> None:
    """What is computed again changes no number, in the middle of a run neither."""
    straight = trainer("straight", steps=6)
    straight.run()
    first = trainer("parts", steps=6, checkpoint_every=3)
    with pytest.raises(Killed):
        die_at(first, 4)
    again = trainer("parts", steps=6, checkpointing=second)
    assert again.recipe.identity()["training"] == first.recipe.identity()["training"]
    assert again.resume() and again.step == 3
    again.run()
    assert equal(weights(straight), weights(again))


@pytest.mark.slow
@pytest.mark.parametrize("setting", [{"optimizer": "adafactor"}, {"frozen": "int8"}])
def test_resuming_with_less_memory(trainer, setting: dict) -> None:
    straight = trainer("straight", checkpoint_every=3, **setting)
    straight.run()
    first = trainer("parts", checkpoint_every=3, **setting)
    with pytest.raises(Killed):
        die_at(first, 4)
    again = trainer("parts", **setting)
    assert again.resume() and again.step == 3
    again.run()
    assert equal(
        list(straight.control.state_dict().values()), list(again.control.state_dict().values())
    )
    assert equal(straight.ema.average, again.ema.average)


@pytest.mark.slow
def test_a_base_in_fewer_bits_teaches_the_same(trainer, tmp_path: Path) -> None:
    """The control follows its hints nearly as well, and is exported in full precision."""
    runs = [
        trainer(name, steps=24, validate_every=24, ema_decay=0.9, frozen=name)
        for name in ("same", "int8")
    ]
    for run in runs:
        run.run()
    plain, small = (run.last["gain"] for run in runs)
    assert plain > 0.1 and small == pytest.approx(plain, rel=0.1) and small != plain
    runs[1].export(tmp_path / "control")
    control = ControlNet.load(tmp_path / "control", backbone=tiny_backbone("v_prediction"))
    assert all(
        torch.equal(a, b) for a, b in zip(control.parameters(), runs[1].ema.average, strict=True)
    )
    kinds = [type(m).__name__ for m in runs[1].backbone.unet.modules()]
    assert kinds.count("QuantisedLayer") > 100 and not any(
        isinstance(m, QuantisedLayer) for m in runs[1].control.modules()
    )


def test_too_small_a_budget_is_one_sentence(trainer) -> None:
    with pytest.raises(
        UserError, match=r"allows 0.00 GB, but a micro-batch takes 0.\d\d GB even if everything"
    ):
        trainer(checkpointing="1MB")
