"""`python -m benchmarks` lists every benchmark, and the groups hold nothing that cannot be run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.__main__ import GROUPS, HERE, commands, main

# modules that are a part of a command, started by it
PARTS = {
    "crash_worker",
    "live_bytes",
    "memory_real",
    "memory_running",
    "generation_peers",
    "generation_profile",
    "generation_turns",
    "random_base",
    "resident",
    "step_shared",
    "step_workers",
    "fast_search",
    "flux_workers",
    "memory_flow",
}


@pytest.mark.parametrize("group", GROUPS)
def test_listing_has_every_benchmark_of_a_group(group: str) -> None:
    modules = {path.stem for path in (HERE / group).glob("*.py")} - PARTS - {"__init__"}
    assert {command.rpartition(".")[2] for command, _ in commands(group)} == modules


def test_listing_prints_a_command_and_what_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    printed = capsys.readouterr().out
    assert "  python -m benchmarks.quality.base\n      The base model by itself" in printed
    assert "worker" not in printed


@pytest.mark.parametrize("path", sorted((HERE / "results").glob("*.json")), ids=lambda p: p.stem)
def test_results_name_commands_that_exist(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    named = re.findall(r"python -m (benchmarks[\w.]*)", str(result.get("command", "")))
    for module in named:
        assert (HERE.parent / (module.replace(".", "/") + ".py")).is_file(), module
