from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import __main__ as entry
from experiments.registry import FIGURES, chosen, module_of
from zeroconv.cli.reproduce import find_checkout
from zeroconv.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_figures_are_chosen_by_many_names() -> None:
    assert (
        chosen(["fig7"])
        == chosen(["7"])
        == chosen(["fig07_no_prompt"])
        == chosen(["Figure 7"])
        == [7]
    )
    assert chosen(["fig11", "fig7"]) == [7, 11]
    assert set(chosen(["shipped"])) == {5, 6, 7, 11, 12}
    assert set(chosen(["all"])) == set(FIGURES)
    with pytest.raises(UserError, match=r"no figure 'fig99'.*fig4"):
        chosen(["fig99"])


def test_registry_loads_a_figure_by_its_file_s_name_at_run_time(tmp_path: Path) -> None:
    assert module_of(9, tmp_path) is None
    (tmp_path / "fig09_baselines.py").write_text("")
    assert module_of(9, tmp_path) == "experiments.fig09_baselines"
    files = sorted((ROOT / "experiments").glob("fig*_*.py"))
    assert files and all(
        module_of(int(path.stem[3:5])) == f"experiments.{path.stem}" for path in files
    )


def test_one_failing_figure_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "experiments"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "fig05_bad.py").write_text("raise SystemExit(3)")
    (package / "fig06_good.py").write_text(
        "import sys, pathlib; pathlib.Path('said').write_text(' '.join(sys.argv[1:]))"
    )
    monkeypatch.setattr(entry, "HERE", package)
    monkeypatch.setattr(entry, "module_of", lambda number: module_of(number, package))
    assert entry.main(["fig5", "fig6", "--count", "2"]) == 1
    assert (tmp_path / "said").read_text() == "--count 2"
    assert entry.main(["fig6"]) == 0


def test_figures_at_a_time_share_the_cores(tmp_path: Path, monkeypatch, capsys) -> None:
    package = tmp_path / "experiments"
    package.mkdir()
    (package / "__init__.py").write_text("")
    touch = "import os, pathlib, time\npathlib.Path('{0}').touch()\n"
    wait = touch + "while not pathlib.Path('{1}').exists(): time.sleep(0.01)\n"
    line = "print('threads', os.environ['OMP_NUM_THREADS'])"
    # ends only where the other runs too
    (package / "fig05_one.py").write_text(wait.format("one", "two") + line)
    (package / "fig06_two.py").write_text(wait.format("two", "one") + line)
    monkeypatch.setattr(entry, "HERE", package)
    monkeypatch.setattr(entry, "module_of", lambda number: module_of(number, package))
    monkeypatch.setattr(entry, "cores", lambda: 6)
    assert entry.main(["fig5", "fig6", "--jobs", "2"]) == 0
    output = capsys.readouterr().out
    assert output.count("threads 3\n") == 2 and "== 2 figures" in output
    assert not (package / "results").exists()
    (package / "results").mkdir()
    monkeypatch.setattr(entry, "chosen", lambda names: [5, 6])
    assert entry.main(["shipped", "--fresh", "--jobs", "2"]) == 0
    result = json.loads((package / "results" / "shipped.json").read_text())
    assert [row[0][:2] for row in result["rows"]] == ["5:", "6:", "al"] and "on 6 cores" in result[
        "note"
    ]
    assert result["command"] == "zeroconv reproduce shipped --fresh --jobs 2"
    with pytest.raises(UserError, match="--jobs is 'two'"):
        entry.main(["fig5", "--jobs", "two"])


def test_figures_start_in_the_order_that_ends_first(monkeypatch) -> None:
    taken = {5: 30, 6: 27, 7: 16, 11: 22, 12: 41}
    monkeypatch.setattr(entry, "minutes_of", taken.get)
    # 68 minutes; the longest first would take 73
    assert entry.soonest([7, 5, 6, 11, 12], 2) == [12, 5, 11, 6, 7]
    assert entry.soonest([5, 12, 7], 1) == [12, 5, 7]
    monkeypatch.setattr(entry, "minutes_of", lambda number: {4: 9.0}.get(number, 0.0))
    assert entry.soonest([5, 6, 7, 8, 9, 10, 11, 4], 2)[0] == 4  # too many to try every order


def test_the_command_lists_figures_and_refuses_unknown_ones() -> None:
    command = [sys.executable, "-m", "zeroconv.cli.app", "reproduce"]
    listed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert listed.returncode == 0 and "fig7" in listed.stdout and "fig07_no_prompt" in listed.stdout
    wrong = subprocess.run([*command, "fig99"], capture_output=True, text=True, cwd=ROOT)
    assert (
        wrong.returncode == 2
        and "no figure 'fig99'" in wrong.stderr
        and "Traceback" not in wrong.stderr
    )


def test_without_a_checkout_it_says_so(tmp_path: Path) -> None:
    assert find_checkout([tmp_path, ROOT]) == ROOT
    with pytest.raises(UserError, match="checkout"):
        find_checkout([tmp_path])
