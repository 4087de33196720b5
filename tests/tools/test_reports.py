"""Results of benchmarks and experiments: one way to write them, one table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import reports


def test_write_json_makes_the_folder_and_keeps_letters(tmp_path: Path) -> None:
    path = tmp_path / "results" / "speed.json"
    reports.write_json(path, {"note": "ΔE ≤ 20"})
    assert "ΔE ≤ 20" in path.read_text(encoding="utf-8")
    assert reports.read_json(path) == {"note": "ΔE ≤ 20"}


def test_write_json_leaves_an_old_result_where_the_new_one_fails(tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    reports.write_json(path, [1])
    with pytest.raises(TypeError):
        reports.write_json(path, [Path("no form in JSON")])
    assert json.loads(path.read_text()) == [1]
    assert list(tmp_path.iterdir()) == [path]


def test_intervals_in_cells_have_digits_and_signs() -> None:
    value = {"mean": 0.12345, "low": -0.1, "high": 0.3}
    assert reports.span(value) == "0.123 [-0.100, 0.300]"
    assert reports.signed(value, 2) == "+0.12 [-0.10, +0.30]"
    assert reports.span(None) == "–"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "True"),
        (12345, "12,345"),
        (0.12345, "0.123"),
        (151.4, "151"),
        ("a|b", "a\\|b"),
    ],
)
def test_cell_of_a_table(value: object, text: str) -> None:
    assert reports.cell(value) == text


def test_replace_blocks_takes_the_blocks_of_its_mark() -> None:
    page = "a\n<!-- paper:x -->\nold\n<!-- /paper -->\n"
    page += "<!-- figures:x -->\nkept\n<!-- /figures -->\n"
    new = reports.replace_blocks(page, "paper", lambda name: f"{name} is new\n")
    assert new == page.replace("old\n", "x is new\n")


def test_print_table_puts_the_note_last(capsys: pytest.CaptureFixture[str]) -> None:
    reports.print_table(["", "F1"], [["true", 0.5]], "n = 3.")
    assert capsys.readouterr().out == " | F1\ntrue | 0.5\nn = 3.\n"
