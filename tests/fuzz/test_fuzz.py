"""The fuzzer finds what it looks for, and finds nothing in a short run of every target."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.fuzz import mutate
from tools.fuzz.harness import run_target
from tools.fuzz.targets import TARGETS
from tools.fuzz.worker import run_case
from zeroconv.errors import UserError


class Target:
    """A target whose only case is one function of the work folder."""

    def __init__(self, act: Callable[[Path], None]) -> None:
        self.act = act

    def case(self, rng: random.Random, work: Path) -> Callable[[], None]:
        return lambda: self.act(work)


def _fail(_: Path) -> None:
    raise ValueError("not a sentence for users")


def _refuse(_: Path) -> None:
    raise UserError("the picture is too large; give a smaller one.")


FAULTS = {
    "ValueError at ?": _fail,
    "deleted out/.eslintrc.json": lambda work: (work / "out" / ".eslintrc.json").unlink(),
    "changed notes.txt": lambda work: (work / "notes.txt").write_text("written through the link"),
    "wrote escape.png": lambda work: (work / "escape.png").write_text("x"),
    "wrote .bashrc": lambda work: (work.parent / "home" / ".bashrc").write_text("x"),
}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # a case changes the working folder
    (tmp_path / "home").mkdir()
    return tmp_path / "work"


@pytest.mark.parametrize("fault", FAULTS)
def test_fuzz_worker_reports_a_fault(fault: str, work: Path) -> None:
    assert run_case(Target(FAULTS[fault]), "seed", work)["fault"] == fault


def test_fuzz_worker_takes_a_sentence_for_no_fault(work: Path) -> None:
    result = run_case(Target(_refuse), "seed", work)
    assert "fault" not in result
    assert not result["accepted"]


def test_fuzz_worker_lets_a_target_write_below_out(work: Path) -> None:
    result = run_case(Target(lambda folder: (folder / "out" / "new.png").touch()), "seed", work)
    assert "fault" not in result
    assert result["accepted"]


def test_fuzz_mutations_are_a_function_of_the_seed() -> None:
    data = bytes(range(256))
    again = [mutate.raw(random.Random(7), data) for _ in range(2)]
    assert again[0] == again[1] != data


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_fuzz_target_has_no_fault_in_a_short_run(name: str, tmp_path: Path) -> None:
    report = run_target(name, seed=1, first=0, count=60, jobs=1, minutes=1.5, out=tmp_path)
    assert not report.faults, report.faults
    assert report.cases >= 5
