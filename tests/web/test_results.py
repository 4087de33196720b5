"""Jobs and pictures on the page: progress, cancel, live mode, history, reuse, comparing."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tests.web.driving import Driver

pytestmark = pytest.mark.web


def test_a_job_shows_previews_and_progress_and_is_cancelled(studio: Driver) -> None:
    studio.ask("a large purple ball on a wooden floor", seed=1, steps=150)
    studio.page.click("#generate")
    studio.page.locator("#result-image.preview").wait_for()
    studio.page.get_by_text("of 150").wait_for()
    studio.page.keyboard.press("Escape")
    studio.page.locator("#result-state", has_text="cancelled").wait_for()
    assert studio.get("/jobs")["jobs"][0]["state"] == "cancelled"
    assert studio.page.locator("#cancel").is_hidden()


def test_a_waiting_job_is_cancelled_from_the_queue(studio: Driver) -> None:
    studio.ask("a ball", seed=1, steps=150)
    studio.page.click("#generate")
    studio.page.locator("#queue-text", has_text="1 running").wait_for()  # else they share a batch
    studio.page.keyboard.press("Control+Enter")
    studio.page.locator("#queue-text", has_text="1 waiting").wait_for()
    studio.page.click("#queue summary")
    rows = studio.page.locator("#queue-list li")
    rows.filter(has_text="waiting").get_by_role("button").click()
    rows.filter(has_text="waiting").wait_for(state="detached")
    rows.get_by_role("button").click()
    rows.wait_for(state="detached")
    states = [job["state"] for job in studio.get("/jobs")["jobs"][:2]]
    assert states == ["cancelled", "cancelled"]


def test_history_gives_settings_and_hint_back_and_with_them_the_same_bits(studio: Driver) -> None:
    studio.add_control("scribble")
    studio.tool("ellipse")
    studio.stroke((44, 34), (96, 86))
    studio.page.get_by_label("From", exact=True).fill("0.1")
    studio.page.get_by_label("From", exact=True).blur()
    studio.ask("a reusable green ball", seed=77, steps=6)
    studio.page.select_option("#s-sampler", "euler_a")
    first = studio.generate()
    hint = np.asarray(studio.hint())
    studio.ask("something else", seed=5, steps=3)
    studio.page.select_option("#s-sampler", "ddim")
    studio.tool("eraser")
    studio.pen(40)
    studio.stroke((20, 64), (110, 64))
    other = studio.generate()
    assert (np.asarray(other) != np.asarray(first)).any()
    studio.page.fill("#history-query", "reusable green")
    card = studio.page.get_by_role("button", name="a reusable green ball, seed 77")
    card.first.click()
    studio.page.get_by_role("button", name="Use these settings").click()
    studio.until("studio.board.controls[0]?.file && studio.board.selected.kind === 'control'")
    assert studio.page.input_value("#prompt") == "a reusable green ball"
    assert studio.page.input_value("#s-sampler") == "euler_a"
    assert (np.asarray(studio.hint()) == hint).all()
    assert np.array_equal(np.asarray(studio.generate()), np.asarray(first))


def test_a_downloaded_picture_is_read_again(studio: Driver) -> None:
    studio.ask("a cone to be read", seed=12, steps=3)
    studio.generate()
    with studio.page.expect_download() as download:
        studio.page.locator("#result-actions").get_by_role("button", name="Download").click()
    content = download.value.path().read_bytes()
    assert "parameters" in Image.open(io.BytesIO(content)).info
    studio.ask("another prompt", seed=1, steps=9)
    file = {"name": "cone.png", "mimeType": "image/png", "buffer": content}
    studio.page.set_input_files("#settings-file", file)
    studio.page.get_by_text("The settings of cone.png are in the form.").wait_for()
    assert studio.page.input_value("#prompt") == "a cone to be read"
    assert studio.page.input_value("#s-steps") == "3"
    assert studio.page.input_value("#s-seed") == "12"


def test_live_mode_makes_a_picture_a_stroke_and_none_without(studio: Driver) -> None:
    studio.add_control("scribble")
    studio.ask("a blue ball", seed=-1, steps=20)
    studio.page.fill("#live-steps", "3")
    studio.stroke((30, 30), (60, 60))
    studio.page.get_by_label("Live", exact=True).check()
    studio.finished(None)
    studio.until("!studio.live.waiting && !studio.live.busy")
    assert studio.value("studio.live.made") == 1  # nothing changed, nothing made
    shown = studio.value("studio.results.shown.id")
    studio.stroke((60, 60), (90, 30))
    studio.finished(shown)
    studio.until("!studio.live.waiting && !studio.live.busy")
    assert studio.value("studio.live.made") == 2
    # live pictures do not fill the history, but for those that are kept
    shown = studio.value("studio.results.shown.id")
    assert studio.get(f"/history/{shown}")["settings"]["steps"] == 3
    assert shown not in [item["id"] for item in studio.get("/history")["items"]]
    studio.page.get_by_role("button", name="Keep", exact=True).click()
    studio.page.locator(f"#history-list [data-id='{shown}']").wait_for()
    assert studio.page.get_by_role("button", name="Keep", exact=True).count() == 0


def test_a_picture_of_the_history_is_compared_starred_and_deleted(studio: Driver) -> None:
    for seed in (21, 22):
        studio.ask("two to compare", seed=seed, steps=2)
        studio.generate()
    page = studio.page
    page.get_by_role("button", name="two to compare, seed 22").first.wait_for()
    page.get_by_role("button", name="two to compare, seed 21").first.click()
    page.get_by_role("button", name="Compare with the result").click()
    page.locator("#compare-share").focus()
    page.keyboard.press("Home")
    assert page.evaluate("document.querySelector('#compare-a').style.clipPath").startswith("inset")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="two to compare, seed 21").first.click()
    page.get_by_role("button", name="Favourite", exact=True).click()
    page.get_by_role("button", name="Favourites only").click()
    page.get_by_role("button", name="two to compare, seed 22").first.wait_for(state="detached")
    assert page.locator("#history-list li").count() == 1
    page.locator("#history-list button").first.click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_text("No picture fits.").wait_for()


def test_a_first_visit_offers_three_examples_that_make_pictures(page, server) -> None:
    studio = Driver(page, server[0])
    page.goto(server[0])
    studio.ready()
    assert page.locator("#examples li").count() == 3
    for number, name in enumerate(("scribble", "pose", "segmentation")):
        if number:
            page.click("#examples-open")
        before = studio.value("studio.results.shown?.id ?? null")
        page.click(f'[data-example="{name}"]')
        studio.finished(before)
        assert studio.value("studio.board.controls.length") == 1
    page.reload()
    studio.ready()
    assert page.locator("#welcome").is_hidden()
    studio.check()


def test_a_refused_request_shows_the_servers_sentence(studio: Driver) -> None:
    studio.ask("a ball", seed=1, steps=151)
    studio.page.click("#generate")
    studio.page.locator(".toast.error", has_text="steps").wait_for()
    studio.errors = [text for text in studio.errors if "422" not in text]  # the browser's own note


def test_faster_pictures_are_recorded_and_made_again(studio: Driver) -> None:
    page = studio.page
    studio.ask("a red ball", seed=5, steps=6)
    page.select_option("#s-fast", "x3")
    first = np.asarray(studio.generate())
    shown = studio.value("studio.results.shown.id")
    assert studio.get(f"/history/{shown}")["settings"]["fast"] == "deep=3,branch=2,difference=2"
    page.select_option("#s-fast", "off")
    assert (np.asarray(studio.generate()) != first).any()
    body = studio.get(f"/history/{shown}")["settings"]
    use = "async (body) => (await import('/static/make/body.js')).useBody(body, zeroconv.board)"
    page.evaluate(use, {**body, "fast": "deep=2,change=0.5"})
    assert page.input_value("#s-fast") == "deep=2,change=0.5"
    page.evaluate(use, body)
    assert page.input_value("#s-fast") == "x3"
    assert (np.asarray(studio.generate()) == first).all()
