"""The page of a run: it stands alone, shows what happened, and survives a run that has hardly
begun.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from tests.training.test_events import LEARNS
from tests.training.test_trainer import trainer
from zeroconv.training.reporting.charts import Curve, chart, smooth, ticks
from zeroconv.training.reporting.report import write_report
from zeroconv.training.reporting.reporter import Page

__all__ = ["trainer"]


@pytest.mark.slow
def test_the_page_of_a_run(trainer) -> None:
    run = trainer(**LEARNS, log_every=2, sample_count=2, sample_steps=2)
    run.run()
    page = write_report(run.folder).read_text()
    assert (
        page.count("<svg") == 3 and page.count("data:image/png;base64,") == 1 and "http" not in page
    )
    assert f"followed since step {run.converged['step']}" in page and "stroke-dasharray" in page
    points = re.findall(r'<polyline[^>]* points="([^"]+)"', page)[0].split()
    assert len(points) == 11  # a measurement at step 0 and every six steps
    band = re.findall(r'<polygon[^>]* points="([^"]+)"', page)[0].split()
    assert len(band) == 22  # the gain's interval, there and back


def test_the_page_is_written_with_every_checkpoint(trainer) -> None:
    seen: list[int] = []

    class Counting(Page):
        def saved(self, folder: Path) -> None:
            super().saved(folder)
            seen.append(run.step)

    run = trainer(steps=4, checkpoint_every=2, reporters=(Counting(),))
    run.run()
    assert seen == [2, 4] and (run.folder / "report.html").is_file()


def test_the_page_of_a_run_that_goes_on_says_nothing_of_its_last_stop(trainer) -> None:
    run = trainer(steps=2)
    run.folder.mkdir(exist_ok=True)
    (run.folder / "summary.json").write_text('{"status": "interrupted", "steps": 1}')
    Page().saved(run.folder)
    assert "interrupted" not in (run.folder / "report.html").read_text()
    (run.folder / "summary.json").write_text('{"status": "finished", "steps": 1}')
    Page().saved(run.folder)
    assert "finished" in (run.folder / "report.html").read_text()


def test_a_run_that_has_hardly_begun_has_a_page_too(tmp_path) -> None:
    assert "Not measured often enough" in write_report(tmp_path).read_text()


def test_rounds_warm_up_and_recipe_are_shown(tmp_path: Path) -> None:
    def interval(mean: float) -> dict[str, float]:
        return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}

    def evaluation(followed: float) -> dict:
        columns = {"own": followed, "shuffled": 0.125, "ceiling": 0.875, "lift": followed - 0.125}
        return {
            "n": 16,
            "metrics": {"f1": {name: interval(mean) for name, mean in columns.items()}},
        }

    lines = [
        {"step": 0, "evaluation": evaluation(0.125)},
        {"step": 40, "evaluation": evaluation(0.625)},
    ]
    lines += [{"step": s, "loss": 1 / s, "lr": min(s, 40) * 1e-5} for s in range(1, 81)]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "recipe.json").write_text(
        json.dumps({"recipe": {"base": "<b>&", "data": {"condition": "canny"}}})
    )
    (tmp_path / "summary.json").write_text(
        json.dumps({"status": "finished", "evaluation": {"step": 40, **evaluation(0.625)}})
    )
    (tmp_path / "samples").mkdir()
    for name in ("step-00000080", *(f"evaluation-{step:08d}" for step in (0, 20, 40))):
        Image.new("RGB", (8, 8)).save(tmp_path / "samples" / f"{name}.png")
    page = write_report(tmp_path).read_text()
    assert page.count("<svg") == 3  # fidelity, training loss, learning rate
    assert "0.625 [0.525, 0.725]; another&#x27;s hint 0.125, ceiling 0.875" in page
    assert (
        "Pictures that were scored, step 0<" in page
        and "scored, step 40<" in page
        and "scored, step 20<" not in page
    )
    assert "Pictures, step 80<" in page and "loss, running mean" in page and "learning rate" in page
    assert "&lt;b&gt;&amp;" in page and "<b>" not in page
    check = Closed()
    check.feed(page)
    assert not check.open


class Closed(HTMLParser):
    """Which elements were opened and not closed again."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        if tag not in ("meta", "img", "html"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        pass

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def test_curves_stand_where_their_numbers_are() -> None:
    drawn = chart([Curve("a", [(0, 1.0), (10, 3.0), (20, 2.0)])], marks=[10])
    line, at = (
        re.findall(r'<polyline[^>]* points="([^"]+)"', drawn)[0],
        re.findall(r'x1="([\d.]+)" x2="\1"', drawn),
    )
    xs, ys = zip(*(map(float, point.split(",")) for point in line.split()), strict=True)
    assert abs(xs[1] - xs[0] - (xs[2] - xs[1])) < 0.11 and [float(x) for x in at] == [xs[1]]
    assert ys[1] < ys[2] < ys[0] and abs((ys[0] - ys[2]) / (ys[0] - ys[1]) - 0.5) < 0.01
    assert "<svg" in chart([Curve("flat", [(1, 2.0), (1, 2.0)])])
    assert "Not measured" in chart([Curve("one", [(1, 2.0)])])


def test_axes_have_round_numbers_and_means_run() -> None:
    assert ticks(0, 400, 4) == [0, 100, 200, 300, 400]
    assert [round(t, 6) for t in ticks(-0.0012, 0.0071, 4)] == [0, 0.005]
    assert smooth([(1, 1.0), (2, 3.0), (3, 5.0), (4, 7.0)], share=0.5) == [
        (1, 1.0),
        (2, 2.0),
        (3, 4.0),
        (4, 6.0),
    ]
    assert smooth([(1, 1.0), (2, 3.0)]) == [(1, 1.0), (2, 3.0)]
