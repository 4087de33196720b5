"""Draws the pictures of docs/studio.md again: python -m tests.web.screenshots [FOLDER [PART...]]

A FOLDER of data that is kept between calls saves the training and the measurement.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.web.driving import Driver, chromium, serving
from zeroconv.serving.settings import ServerSettings

TO = Path(__file__).resolve().parents[2] / "docs" / "pictures"
SIZE = {"width": 1440, "height": 940}
MINUTES = 60_000  # milliseconds
RUN = "canny-small"


def save(studio: Driver, name: str) -> None:
    """At most 300 KB."""
    page = studio.page
    page.mouse.move(0, 0)
    page.locator(".toast").first.wait_for(state="detached")  # a note goes by itself
    studio.settled()
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.save(TO / f"studio-{name}.webp", quality=82, method=6)


def example(studio: Driver, name: str) -> None:
    before = studio.value("studio.results.shown?.id ?? null")
    studio.page.click("#examples-open")
    studio.page.click(f'[data-example="{name}"]')
    studio.finished(before)


def make(studio: Driver) -> None:
    """A room of classes, a scribble and a pose, in dark and light."""
    page = studio.page
    page.emulate_media(color_scheme="light")
    example(studio, "scribble")
    example(studio, "segmentation")
    save(studio, "classes")
    page.emulate_media(color_scheme="dark")
    example(studio, "pose")
    wrist = studio.value("studio.board.selected.people[1].points[4]")
    studio.stroke((wrist[0], wrist[1]), (wrist[0] - 4, wrist[1] - 1))
    studio.generate()
    save(studio, "pose")


def train(studio: Driver) -> None:
    """A run of 240 steps with samples."""
    page = studio.page
    page.click("#tab-train")
    page.locator("#train-memory", has_text="about").wait_for(timeout=MINUTES)
    if not page.locator(f'[data-run="{RUN}"]').count():
        everything = "document.querySelectorAll('#train details').forEach((one) => one.open = {})"
        page.evaluate(everything.format("true"))
        values = {
            "name": RUN, "examples": 256, "size": 64, "training.batch_size": 8,
            "training.validate_every": 20, "training.sample_every": 60,
        }  # fmt: skip
        for path, value in values.items():
            page.fill(f'[data-path="{path}"]', str(value))
        page.evaluate(everything.format("false"))
        page.click("#train-start")
    page.click(f'[data-run="{RUN}"]')
    page.locator("#run-state").wait_for()
    if page.locator("#run-state", has_text="stopped").count():
        page.get_by_role("button", name="Resume").click()
    page.locator("#run-state", has_text="done").wait_for(timeout=20 * MINUTES)
    page.evaluate("scrollTo(0, 0)")
    save(studio, "train")


def measure(studio: Driver) -> None:
    """Two controls side by side."""
    page = studio.page
    page.emulate_media(color_scheme="light")
    page.click("#tab-measure")
    page.locator("#measure-form").get_by_label("Control", exact=True).select_option("scribble")
    page.get_by_label("Beside it").select_option("canny")
    page.get_by_label("Pictures", exact=True).fill("8")
    page.click("#measure-start")
    for name in ("scribble", "canny"):
        page.locator(f'[data-measured="{name}"] table').wait_for(timeout=10 * MINUTES)
    save(studio, "measure")


def main(folder: Path, parts: list[str]) -> None:
    from playwright.sync_api import sync_playwright

    settings = ServerSettings(data=folder, device="cpu", dtype="float32")
    with serving(settings) as (address, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_context(viewport=SIZE).new_page()  # type: ignore[arg-type]
        page.set_default_timeout(5 * MINUTES)
        studio = Driver(page, address).open()
        for part in (make, train, measure):
            if not parts or part.__name__ in parts:
                part(studio)
        studio.check()
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]), sys.argv[2:])
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary), [])
