from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from experiments import page
from experiments.common import Claim, write_result

BLOCK = "<!-- paper:{} -->\n{}<!-- /paper -->\n"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    claims = [
        Claim("zero is best", "by 0.1 | 0.2", True),
        Claim("all the same", "not at all", False),
    ]
    write_result(
        "fig08",
        ["", "f1"],
        [["full", 0.75]],
        claims,
        note="n = 3.",
        pictures=["fig08.jpg: three networks"],
        command="zeroconv reproduce fig8",
        folder=tmp_path,
    )
    return tmp_path


def test_a_block_shows_verdicts_pictures_and_table(results: Path) -> None:
    text = page.rewrite("a\n" + BLOCK.format("fig08", "old\n") + "b\n", results)
    assert "old" not in text and text.startswith("a\n") and text.endswith("b\n")
    assert "| zero is best | by 0.1 \\| 0.2 | reproduced |" in text
    assert "| all the same | not at all | **not reproduced** |" in text
    assert "![three networks](pictures/paper/fig08.jpg)" in text
    assert "| full | 0.75 |" in text and "Made by `zeroconv reproduce fig8`. n = 3." in text
    assert page.rewrite(text, results) == text


def test_the_summary_counts_every_figure(results: Path) -> None:
    (results / "fig09.json").write_text(json.dumps({"columns": ["", "f1"], "rows": [["a", 1.0]]}))
    more = [("of sketches too", False), ("(our question) of circles too", True)]
    claims = [{"paper": paper, "ours": "no", "agrees": agrees} for paper, agrees in more]
    (results / "fig08-scribble.json").write_text(json.dumps({"claims": claims}))
    text = page.summary(results)
    assert f"| 8 | {page.FIGURES[8].title} | **reproduced in part** | 1 of 3 |" in text
    assert "| 9 | baselines that read the same hints | – | – |" in text
    assert "| 10 | how many pictures training needs | not measured | – |" in text


def test_verdicts_are_those_of_the_papers_claims() -> None:
    def of(*agrees: bool) -> str:
        claims = [{"paper": "a", "agrees": one} for one in agrees]
        return page.verdict([*claims, {"paper": "(our question) b", "agrees": False}])

    assert of() == "–" and of(True, True) == "reproduced"
    assert of(True, False) == "**reproduced in part**" and of(False) == "**not reproduced**"


def test_a_short_block_shows_verdicts_and_the_first_picture(results: Path) -> None:
    more = {"claims": [{"paper": "of sketches too", "ours": "no", "agrees": False}]}
    (results / "fig08-scribble.json").write_text(json.dumps(more))
    text = page.rewrite(BLOCK.format("short-fig08", ""), results)
    assert "| zero is best | reproduced |" in text
    assert "| of sketches too (scribble) | **not reproduced** |" in text
    assert "![three networks](pictures/paper/fig08.jpg)" in text and "0.75" not in text
    assert "*not measured yet*" in page.rewrite(BLOCK.format("short-fig10", ""), results)


def test_page_names_what_figures_that_ran_together_used(tmp_path: Path) -> None:
    for number, minutes in ((5, 20.0), (7, 10.5), (4, 99.0)):  # the last is trained first
        (tmp_path / f"fig{number:02d}.json").write_text(json.dumps({"call_cpu_minutes": minutes}))
    result = {
        "columns": ["figure", "minutes"],
        "rows": [["all", 18.0]],
        "command": "c",
        "note": "On 2 cores.",
    }
    (tmp_path / "shipped.json").write_text(json.dumps(result))
    text = page.rewrite(BLOCK.format("shipped", ""), tmp_path)
    assert (
        "On 2 cores. The figures' own processes took 30 CPU minutes." in text
        and "| all | 18 |" in text
    )


def test_a_figure_without_claims_is_a_table(results: Path) -> None:
    text = page.section({"columns": ["", "f1"], "rows": [["a", 0.5]]})
    assert "| a | 0.5 |" in text and "reproduced" not in text


def test_the_pages_show_the_results_of_the_repository() -> None:
    assert page.main(["--check"]) == 0, "run python -m experiments.page"


def test_the_overview_is_short() -> None:
    assert len(page.pages()[0].read_text(encoding="utf-8").splitlines()) <= 250


def test_the_pages_have_every_figure_and_every_picture_is_there() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in page.pages())
    blocks = {*re.findall(r"<!-- paper:([\w.-]+) -->", text)}
    for number in page.FIGURES:
        assert {f"fig{number:02d}", f"short-fig{number:02d}"} <= blocks
    for path in page.RESULTS.glob("fig*.json"):
        for picture in json.loads(path.read_text()).get("pictures") or []:
            assert (
                page.ROOT / "docs" / "pictures" / "paper" / picture.partition(": ")[0]
            ).is_file()


def test_a_result_keeps_what_its_verdict_was_made_of(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = json.loads((results / "fig08.json").read_text())
    assert kept["claims"][1] == {"paper": "all the same", "ours": "not at all", "agrees": False}
    write_result(
        "fig08", ["", "f1"], [["full", 1]], [Claim("p", "o", False)], note="", folder=results
    )
    output = capsys.readouterr().out
    assert "paper: p" in output and "DOES NOT AGREE" in output


def test_a_call_that_finds_all_kept_does_not_hide_what_it_took(results: Path, monkeypatch) -> None:
    def written(minutes: float, command: str) -> float:
        monkeypatch.setattr("experiments.common.call_minutes", lambda: minutes)
        path = write_result(
            "fig08", ["", "f1"], [["full", 1]], [], note="n.", command=command, folder=results
        )
        return json.loads(path.read_text())["call_cpu_minutes"]

    assert [written(*call) for call in ((40.0, "a"), (0.5, "a"), (2.0, "b"))] == [40.0, 40.0, 2.0]
    assert "n. The whole command: 2 CPU minutes." in page.section(
        json.loads((results / "fig08.json").read_text())
    )
    written(0.5, "c")  # all was there already: that is not what the command takes
    assert "whole command" not in page.section(json.loads((results / "fig08.json").read_text()))
