"""The page of a run: it stands alone, shows what happened, and survives a run that has hardly begun."""

from __future__ import annotations

import re

from tests.training.test_events import LEARNS
from tests.training.test_trainer import trainer
from zeroconv.training.report import chart, write_report

__all__ = ["trainer"]


def test_the_page_of_a_run(trainer) -> None:
    run = trainer(**LEARNS, log_every=2, sample_count=2, sample_steps=2)
    run.run()
    page = write_report(run.folder).read_text()
    assert page.count("<svg") == 3 and page.count("data:image/png;base64,") == 1 and "http" not in page
    assert f"followed since step {run.converged['step']}" in page and "stroke-dasharray" in page
    points = re.findall(r'points="([^"]+)"', page)[0].split()
    assert len(points) == 11  # a measurement at step 0 and every six steps


def test_a_run_that_has_hardly_begun_has_a_page_too(tmp_path) -> None:
    assert "Not measured often enough" in write_report(tmp_path).read_text()


def test_curves_stand_where_their_numbers_are() -> None:
    drawn = chart([("a", [(0, 1.0), (10, 3.0), (20, 2.0)])], marks=[10])
    (first, top, last), (at,) = (re.findall(r'points="([^"]+)"', drawn)[0].split(), re.findall(r'x1="([^"]+)"', drawn))
    xs, ys = zip(*(map(float, point.split(",")) for point in (first, top, last)), strict=True)
    assert xs[1] - xs[0] == xs[2] - xs[1] and float(at) == xs[1]
    assert ys[1] < ys[2] < ys[0] and abs((ys[0] - ys[2]) / (ys[0] - ys[1]) - 0.5) < 0.01
    assert "<svg" in chart([("flat", [(1, 2.0), (1, 2.0)])])
