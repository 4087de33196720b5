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
    text = (
        "before\n" + block.format("speed", "old\n") + "mid\n" + block.format("other", "") + "end\n"
    )
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


def test_summary_has_five_rows_from_the_results(tmp_path: Path) -> None:
    step = {
        "rows": [
            ["bf16, diffusers' script", "4.00 [3, 5]", "1", "9.5"],
            ["bf16, zeroconv", "2.00 [1, 3]", "2", "6.5"],
        ]
    }
    results = {
        "train_step": step,
        "train_step_h100": step,
        "parity": {"rows": [["SD 1.5", "0", "2e-06", "1e-05"]]},
        "crash": {"rows": [["kills", 7], ["weights bit for bit the same", "no"]]},
        "family": {
            "rows": [["canny, f1_1px, own caption", "0.7 [0, 1]", "0.1 [0, 1]", "–", "0.9"]]
        },
    }
    for name, result in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result))

    text = figures.rewrite("<!-- figures:summary -->\n<!-- /figures -->\n", tmp_path)
    assert len(text.splitlines()) == 2 + 2 + 5
    assert (
        "| 2.00 s on an H100, 2.00 s on 2 CPU cores | diffusers' script: 4.00 s and 4.00 s |"
        in text
    )
    assert "| 6.5 GiB | diffusers' script: 9.5 GiB |" in text
    assert "largest relative error 2e-06, 1 bases" in text
    assert "weights after 7 kills (CPU) | not the same |" in text
    assert (
        "| 0.7 on the playroom base | wrong hint: 0.1; real pictures after the VAE: 0.9 |" in text
    )


def test_figures_are_not_summed_up_where_a_result_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        figures.rewrite("<!-- figures:summary -->\n<!-- /figures -->\n", tmp_path)
