"""The tabs Train and Measure."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.web.driving import SECONDS, Driver, png, serving
from zeroconv.playroom import render
from zeroconv.serving.settings import ServerSettings

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
    ).wait_for(timeout=SECONDS * 1000)
    page.click("#train-start")
    page.locator("#run-state", has_text="done, step 20 of 20").wait_for(timeout=3 * SECONDS * 1000)
    loss = page.locator('[data-chart="Loss"] svg').get_attribute("aria-label")
    assert "20 values" in loss and "at step 20" in loss
    gain = page.locator('[data-chart="Hint gain"] svg').get_attribute("aria-label")
    assert "at step 20" in gain
    assert page.locator('[data-chart="Loss"] .curve').is_visible()
    size = "document.querySelector('.sheet').naturalWidth"
    studio.eventually(lambda: page.evaluate(size) > 0, "a sheet")
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


def test_a_run_is_deleted_after_asking_back(studio: Driver, server) -> None:
    page, runs = studio.page, server[1].state.studio.settings.data / "runs"
    recipe = {"name": "unwanted", "data": "playroom", "condition": "scribble", "examples": 32}
    job = page.request.post(f"{studio.address}/api/v1/train", data=recipe).json()
    page.request.delete(f"{studio.address}/api/v1/jobs/{job['id']}")
    studio.eventually(lambda: studio.get(f"/jobs/{job['id']}")["state"] == "cancelled", "the end")
    page.click("#tab-train")
    page.click('[data-run="unwanted"]')
    page.locator("#run h2", has_text="unwanted").wait_for()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Keep").click()
    assert (runs / "unwanted.json").is_file()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete for good").click()
    page.locator('[data-run="unwanted"]').wait_for(state="detached")
    assert not list(runs.glob("*unwanted*"))


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
    page.click("summary:has-text('Uploaded sets')")
    row = page.locator(f'[data-set="{name}"]')
    assert "2 pictures" in row.inner_text()
    row.get_by_role("button", name="Delete").click()
    row.get_by_role("button", name="Delete for good").click()
    row.wait_for(state="detached")
    assert page.locator('[data-path="data"]').input_value() != name
    assert name not in [one["name"] for one in studio.get("/models")["datasets"]]


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
    images = "[...document.querySelectorAll('#measured .four img')]"
    studio.until(f"{images}.every((one) => one.complete && one.naturalWidth > 0)")


def test_measuring_two_kinds_of_a_union_and_a_control_that_does_not_say(page, tmp_path) -> None:
    from tests.helpers.tiny import randomise_
    from zeroconv.backbones import load_backbone
    from zeroconv.control import ControlNet
    from zeroconv.control.union import ControlNetUnion

    base = load_backbone("playroom")
    randomise_(ControlNetUnion.from_backbone(base)).save(tmp_path / "both")
    randomise_(ControlNet.from_backbone(base)).save(tmp_path / "silent")
    controls = (str(tmp_path / "both"), str(tmp_path / "silent"))
    settings = ServerSettings(data=tmp_path / "data", device="cpu", controls=controls, warm=False)
    with serving(settings) as (address, _):
        studio = Driver(page, address).open("measure")
        page.get_by_label("Control", exact=True).select_option("both")
        page.get_by_label("What its hints show").select_option("canny")
        assert page.get_by_label("What the other's hints show").is_hidden()
        page.get_by_label("Beside it").select_option("both")
        page.get_by_label("What the other's hints show").select_option("scribble")
        page.get_by_label("Pictures", exact=True).fill("2")
        page.locator("#measure-form").get_by_label("Steps").fill("1")
        page.locator("#measure-form").get_by_label("Faster").select_option("x2")
        page.click("#measure-start")
        for name in ("both:canny", "both:scribble"):
            page.locator(f'[data-measured="{name}"] table').wait_for(timeout=2 * SECONDS * 1000)
        jobs = [job for job in studio.get("/jobs")["jobs"] if job["kind"] == "evaluate"]
        reports = {job["result"]["control"]: job["result"]["report"] for job in jobs}
        assert {name: report["condition"] for name, report in reports.items()} == {
            "both:canny": "canny", "both:scribble": "scribble",
        }  # fmt: skip
        assert {report["fast"] for report in reports.values()} == {"deep=2,branch=2,difference=2"}
        page.get_by_label("Control", exact=True).select_option("silent")
        page.get_by_label("What its hints show").select_option("lineart")
        page.get_by_label("Control", exact=True).select_option("canny")
        assert page.get_by_label("What its hints show").is_hidden()
        studio.check()
