"""The benchmark of a step, on a tiny model: both sides compute one loss, and the table says what
was measured.
"""

from __future__ import annotations

import argparse
import json

import torch

from benchmarks.speed import flux_workers, train_step
from benchmarks.speed.flux_workers import FluxOurs, FluxTheirs
from benchmarks.speed.step_workers import Ours, Theirs, fixed_inputs


def test_both_sides_compute_the_same_loss_and_train() -> None:
    shared = ("tiny", "fp32", 2, 64, torch.device("cpu"))
    theirs, ours = Theirs(*shared), Ours(*shared, rung=2)
    inputs = fixed_inputs("tiny", 2, 64)
    before = [worker.loss(inputs) for worker in (theirs, ours)]
    assert abs(before[0] / before[1] - 1) < 1e-4
    for worker in (theirs, ours):
        parts = worker.step()
        assert "backward" in parts and all(seconds >= 0 for seconds in parts.values())
    assert all(
        worker.loss(inputs) != loss for worker, loss in zip((theirs, ours), before, strict=True)
    )


def test_a_run_writes_its_figures(tmp_path, monkeypatch) -> None:
    class Worker:
        def __init__(
            self, who: str, arguments: argparse.Namespace, precision: str, rung: int = 3
        ) -> None:
            self.seconds = {"theirs": 4.0, "ours": 2.0}[who]

        def ask(self, word: str) -> dict:
            parts = {"autoencoder": 1.0, "text encoder": 0.5, "backward": self.seconds - 1.5}
            step = {
                "seconds": self.seconds,
                "parts": parts,
                "peak": self.seconds * 2**30,
                "reserved": 0,
            }
            return {"loss": {"loss": 1.0}, "flops": {"flops": 2 * 10**12}, "step": step}[word]

        def end(self) -> None:
            pass

    written = {}
    monkeypatch.setattr(train_step, "Worker", Worker)
    monkeypatch.setattr(
        train_step, "machine_peak", lambda device, precisions: {"matrix product fp32": 2000.0}
    )
    monkeypatch.setattr(
        train_step, "write_result", lambda name, columns, rows, *rest: written.update({name: rows})
    )
    monkeypatch.setattr(
        "sys.argv",
        ["train_step", "--json", str(tmp_path / "found.json"), "--precision", "fp32,bf16"],
    )
    train_step.main()
    results = json.loads((tmp_path / "found.json").read_text())["configurations"]
    assert (
        [one["speedup"] for one in results]
        == [one["memory_ratio"] ** -1 for one in results]
        == [2.0, 2.0]
    )
    assert [rung["seconds"] for rung in results[0]["ladder"]] == [2.0] * 4
    ratio = next(row for row in written["train_step"] if row[0] == "fp32, ratio")
    assert "2.00×" in ratio[1] and "50% of the machine's best product" in ratio[-1]


def test_a_log_of_a_run_that_was_cut_off_becomes_a_table(tmp_path, monkeypatch) -> None:
    log = tmp_path / "steps.log"
    log.write_text(
        "# A card\nbf16 theirs 0.4 s\nbf16 ours 0.1 s\nbf16 theirs 0.2 s\nbf16 ours 0.2 s\nnoise\n"
    )
    written = {}
    monkeypatch.setattr(
        train_step, "write_result", lambda name, columns, rows, *rest: written.update({name: rows})
    )
    monkeypatch.setattr("sys.argv", ["train_step", "--from-log", str(log), "--batch", "3"])
    train_step.main()
    theirs, ours, ratio = written["train_step"]
    assert theirs[1:] == ["0.300 [0.200, 0.400]", "10.0"] and ours[1:] == [
        "0.150 [0.100, 0.200]",
        "20.0",
    ]
    assert ratio[1] == "2.00× as fast"


def test_both_sides_compute_the_same_loss_of_a_flux_and_train() -> None:
    shared = ("tiny-flux", "fp32", 2, 64, torch.device("cpu"))
    theirs, ours = FluxTheirs(*shared), FluxOurs(*shared, rung=2)
    inputs = flux_workers.fixed_inputs("tiny-flux", 2, 64)
    before = [worker.loss(inputs) for worker in (theirs, ours)]
    assert abs(before[0] / before[1] - 1) < 1e-4
    for worker in (theirs, ours):
        parts = worker.step()
        assert "backward" in parts and all(seconds >= 0 for seconds in parts.values())
    assert all(
        worker.loss(inputs) != loss for worker, loss in zip((theirs, ours), before, strict=True)
    )
