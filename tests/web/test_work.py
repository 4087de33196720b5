"""The tabs Train and Measure."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.web.driving import SECONDS, Driver, png
from zeroconv.playroom import render

pytestmark = pytest.mark.web


def _short_run(studio: Driver, name: str) -> None:
    """Twenty steps on few pictures."""
    page = studio.page
    values = {
        "name": name, "examples": 32, "size": 64, "training.steps": 20, "training.batch_size": 4,
        "training.validate_every": 5, "training.sample_every": 10, "training.sample_count": 2,
        "training.sample_steps": 3, "training.checkpoint_every": 10, "training.log_every": 1,
    }  # fmt: skip
    page.evaluate("document.querySelectorAll('#train details').forEach((one) => one.open = true)")
    for path, value in values.items():
        page.fill(f'[data-path="{path}"]', str(value))
    page.select_option('[data-path="condition"]', "scribble")


def test_training_twenty_steps_shows_curves_and_samples_and_gives_a_control(
    page, server,
) -> None:  # fmt: skip
    studio = Driver(page, server[0]).open("train")
    page.locator('[data-path="training.steps"]').wait_for()
    _short_run(studio, "short")
    page.locator("#train-memory", has_text="MB").or_(
        page.locator("#train-memory", has_text="GB")
    ).wait_for(timeout=60_000)
    page.click("#train-start")
    page.locator("#run-state", has_text="done, step 20 of 20").wait_for(timeout=3 * SECONDS * 1000)
    loss = page.locator('[data-chart="Loss"] svg').get_attribute("aria-label")
    assert "20 values" in loss and "at step 20" in loss
    gain = page.locator('[data-chart="Hint gain"] svg').get_attribute("aria-label")
    assert "at step 20" in gain
    assert page.locator('[data-chart="Loss"] .curve').is_visible()
    size = "document.querySelector('.sheet').naturalWidth"
    page.wait_for_timeout(500)
    assert page.evaluate(size) > 0
    page.locator("#run-state", has_text="usable as").wait_for()
    page.click("#tab-make")
    options = page.locator("#add-control option").all_text_contents()
    assert any("short" in option for option in options)
    studio.check()


def test_a_training_is_stopped_and_goes_on(page, server) -> None:
    studio = Driver(page, server[0]).open("train")
    page.locator('[data-path="training.steps"]').wait_for()
    _short_run(studio, "stopped")
    page.fill('[data-path="training.steps"]', "4000")
    page.click("#train-start")
    page.locator("#run-state", has_text="running, step ").wait_for(timeout=SECONDS * 1000)
    page.locator('[data-chart="Loss"] .curve').wait_for(timeout=SECONDS * 1000)
    page.get_by_role("button", name="Stop", exact=True).click()
    page.locator("#run-state", has_text="stopped, step").wait_for(timeout=SECONDS * 1000)
    step = studio.get("/train/runs/stopped")["step"]
    assert 0 < step < 4000
    page.get_by_label("Steps in all").fill(str(step + 5))
    page.get_by_role("button", name="Resume").click()
    page.locator("#run-state", has_text=f"done, step {step + 5}").wait_for(timeout=SECONDS * 1000)
    studio.check()


def test_pictures_to_train_on_are_shown_with_their_hints_and_uploaded(studio: Driver) -> None:
    page = studio.page
    page.click("#tab-train")
    page.locator('[data-path="condition"]').wait_for()
    files = []
    for seed in (20_014, 20_028):
        scene = render(seed, size=128)
        files.append(png(Image.fromarray(np.asarray(scene.image)), f"{seed}.png"))
        text = {"name": f"{seed}.txt", "mimeType": "text/plain", "buffer": scene.caption.encode()}
        files.append(text)
    page.set_input_files("[data-train-pictures]", files)
    page.get_by_text("2 pictures").wait_for()
    page.get_by_alt_text("The canny hint of 20014.png").wait_for()
    page.get_by_role("button", name="Upload the set").click()
    page.get_by_text("2 pictures are uploaded as").wait_for()
    name = page.locator('[data-path="data"]').input_value()
    assert name.startswith("pictures-")
    page.locator("#train-memory", has_text="about").wait_for()


def test_measuring_two_controls_shows_tables_and_pictures_side_by_side(studio: Driver) -> None:
    page = studio.page
    page.click("#tab-measure")
    page.get_by_label("Control", exact=True).select_option("scribble")
    page.get_by_label("Beside it").select_option("canny")
    page.get_by_label("Pictures", exact=True).fill("4")
    page.locator("#measure-form").get_by_label("Steps").fill("6")
    page.click("#measure-start")
    for name in ("scribble", "canny"):
        box = page.locator(f'[data-measured="{name}"]')
        box.locator("table").wait_for(timeout=2 * SECONDS * 1000)
        heads = box.locator("thead th").all_text_contents()
        assert heads == ["floor", "control", "no control", "ceiling"]
        cells = box.locator("tbody").first.locator("td").all_text_contents()
        assert "4 pairs" in box.get_by_role("heading", name=name).inner_text()
        floor, control, _, ceiling = (float(cell[:5]) for cell in cells)
        assert floor < control < 1 and ceiling > control - 0.2
        for group in ("Best", "Median", "Worst"):
            assert box.get_by_role("heading", name=group).is_visible()
        box.locator(".four img").last.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    loaded = "[...document.querySelectorAll('#measured .four img')].every((one) => one.complete)"
    assert page.evaluate(loaded)
