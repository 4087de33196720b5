"""The table of few steps: its rows, and a tiny run with a LoRA of random numbers."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.quality.few_steps import Way, main, shares, ways
from zeroconv.backbones import load_backbone
from zeroconv.checkpoints.lora import LCM
from zeroconv.generation.samplers.names import read_names
from zeroconv.training.lora.adapter import add_adapter, lora_state
from zeroconv.training.recipes.lora import LoraSettings


def test_few_steps_rows_are_every_sampler_with_its_steps_after_the_usual_one():
    rows = ways([2, 4])
    assert rows[0] == Way("unipc", 20) and len(rows) == len(set(rows)) == 13
    assert Way("lcm", 4, True) in rows and Way("ddim_trailing", 2) in rows
    for way in rows:
        read_names(way.scheduler)


def test_few_steps_fidelity_is_in_per_cent_of_the_usual_steps():
    assert shares({"a": 0.3, "b": 1.0}, {"a": 0.4, "b": 0.0}) == ["75", "–"]


@pytest.mark.slow
def test_few_steps_table_of_a_tiny_run(tmp_path, monkeypatch):
    backbone = load_backbone("playroom")
    add_adapter(backbone, LoraSettings(rank=2, layers=("attention",)))
    file = tmp_path / "lora.safetensors"
    state = {name: value.contiguous() for name, value in lora_state(backbone).items()}
    save_file(state, file, metadata=LCM.header())
    monkeypatch.setattr(
        "benchmarks.quality.few_steps.ways", lambda steps: [Way("ddim", 2), Way("lcm", 1, True)]
    )
    torch.set_num_threads(1)
    arguments = ["--count", "2", "--pairs", "2", "--conditions", "canny", "--steps", "1"]
    main(["--lora", str(file), "--out", str(tmp_path / "out.json"), *arguments])
    result = json.loads((tmp_path / "out.json").read_text())
    assert [row[:3] for row in result["rows"]] == [["ddim", 2, "without"], ["lcm", 1, "with"]]
    assert result["rows"][0][-1] == "100" and len(result["columns"]) == 6
