from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import figures
from tools.reports import markdown_table


def test_a_table_shows_columns_rows_and_how_it_was_made() -> None:
    result = {
        "columns": ["", "canny F1"],
        "rows": [["true hint", 0.61234], ["shuffled", None]],
        "command": "zeroconv evaluate playroom-canny",
        "note": "200 scenes.",
    }
    assert markdown_table(result) == (
        "|  | canny F1 |\n| --- | ---: |\n| true hint | 0.612 |\n| shuffled | – |\n"
        "\nMade by `zeroconv evaluate playroom-canny`. 200 scenes.\n"
    )


def test_plain_objects_become_tables_too() -> None:
    assert markdown_table({"psnr": 31.25, "n": 1234, "command": ""}) == (
        "|  | value |\n| --- | ---: |\n| psnr | 31.2 |\n| n | 1,234 |\n"
    )
    nested = {"true": {"f1": 0.5, "n": 2}, "shuffled": {"f1": 0.1}}
    assert "| true | 0.5 | 2 |\n| shuffled | 0.1 | – |" in markdown_table(nested)


def test_rewriting_touches_the_marked_tables_only(tmp_path: Path) -> None:
    (tmp_path / "speed.json").write_text(json.dumps({"seconds": 1.5}))
    block = "<!-- figures:{} -->\n{}<!-- /figures -->\n"
    text = "before\n" + block.format("speed", "old\n") + "mid\n" + block.format("other", "") + "end\n"
    new = figures.rewrite(text, tmp_path)
    assert "old" not in new
    assert "| seconds | 1.5 |" in new
    assert "*not measured yet*" in new
    assert new.startswith("before\n")
    assert new.endswith("end\n")
    assert figures.rewrite(new, tmp_path) == new


@pytest.mark.parametrize("page", figures.pages(), ids=lambda page: page.name)
def test_pages_show_the_results_of_the_repository(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert figures.rewrite(text, figures.RESULTS) == text, "run python -m benchmarks.figures"
