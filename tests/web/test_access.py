"""Who may use the page: tokens, contrast and names for everybody, keys, narrow screens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.web.driving import Driver, serving
from zeroconv.serving.settings import ServerSettings

pytestmark = pytest.mark.web

TOKEN = "a-secret-of-the-test"
TABS = ("make", "train", "measure")


def test_a_token_is_needed_on_another_host_and_asked_for(page: Any, tmp_path: Path) -> None:
    settings = ServerSettings(host="0.0.0.0", token=TOKEN, data=tmp_path, device="cpu", warm=False)
    with serving(settings) as (address, _):
        assert page.request.get(f"{address}/api/v1/models").status == 401
        page.goto(address)
        page.locator("#login").wait_for()
        page.fill("#token", "not the token")
        page.keyboard.press("Enter")
        page.locator("#login-error", has_text="not the token").wait_for()
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        page.locator("html[data-ready]").wait_for()
        assert page.request.get(f"{address}/api/v1/models").status == 200
        page.goto("about:blank")


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_axe_finds_nothing_serious(browser: Any, server: tuple[str, Any], scheme: Any) -> None:
    axe = pytest.importorskip("axe_core_python.sync_playwright").Axe()
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    studio = Driver(context.new_page(), server[0])
    page = studio.page
    wrong: list[str] = []

    def look(where: str) -> None:
        studio.settled()
        seen = axe.run(page)["violations"]
        for violation in seen:
            if violation["impact"] in ("serious", "critical"):
                nodes = "; ".join(node["html"][:160] for node in violation["nodes"][:3])
                wrong.append(f"{where}: {violation['id']} {violation['help']}: {nodes}")

    page.goto(server[0])
    studio.ready()
    look("welcome")
    page.keyboard.press("Escape")
    for tab in TABS:
        page.click(f"#tab-{tab}")
        studio.settled()
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        look(tab)
    page.click("#tab-make")
    for name in ("pose", "segmentation", "depth", "canny"):
        studio.add_control(name)
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        look(f"a {name} layer")
    page.keyboard.press("?")
    look("the list of keys")
    page.keyboard.press("Escape")
    studio.ask("a ball", seed=1, steps=2)
    studio.generate()
    look("a result")
    page.locator("#history-list button").first.click()
    look("a picture of the history")
    context.close()
    assert not wrong, "\n".join(wrong)


def test_the_page_is_used_by_keys(studio: Driver) -> None:
    page = studio.page
    page.keyboard.press("2")
    assert page.locator("#train").is_visible() and page.locator("#make").is_hidden()
    page.focus("#tab-train")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#make").is_visible()
    assert page.evaluate("document.activeElement.id") == "tab-make"
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("o")
    assert studio.value("studio.tools.name") == "ellipse"
    page.keyboard.press("]")
    assert studio.value("studio.tools.size") == 4
    page.focus("#prompt")
    page.keyboard.type("be")  # letters in a text are no shortcuts
    assert studio.value("studio.tools.name") == "ellipse"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    for _ in range(12):
        page.keyboard.press("Tab")
        assert page.evaluate(outline) != "none" or page.evaluate(
            "document.activeElement.matches('.unseen')"
        )


LONGEST = "w" * 60  # of a run's name


def long_run() -> dict[str, Any]:
    """What other tests leave on the server must not decide what this one sees."""
    named = {"name": LONGEST, "condition": "segmentation", "state": "done", "bytes": 12_345_678}
    steps = {"step": 99_999, "steps": 100_000, "detected_step": 5_000, "time_left_s": None}
    curves = {"loss": [[1, 0.5], [99_999, 0.1]], "hint_gain": [[1, 0.0]], "samples": []}
    return {**named, **steps, **curves, "control": f"runs/{LONGEST}", "job": None}


@pytest.mark.parametrize(("width", "height"), [(1024, 768), (820, 1180), (768, 1024), (390, 844)])
def test_the_page_fits_tablets(page: Any, server: tuple[str, Any], width: int, height: int) -> None:
    page.set_viewport_size({"width": width, "height": height})
    page.route("**/train/runs", lambda route: route.fulfill(json={"runs": [long_run()]}))
    page.route(f"**/train/runs/{LONGEST}", lambda route: route.fulfill(json=long_run()))
    studio = Driver(page, server[0]).open()
    for tab in TABS:
        page.click(f"#tab-{tab}")
        studio.settled()
        overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(overflow) <= 0, tab
    assert page.locator(f'[data-run="{LONGEST}"]').count() == 1
    page.click("#tab-make")
    studio.add_control("pose")
    studio.settled()  # the pose's fields are below the canvas and move what is below them
    boxes = "['#canvas', '#result-picture'].map((one) => document.querySelector(one)"
    box, result = page.evaluate(boxes + ".getBoundingClientRect().toJSON())")
    assert box["width"] >= min(width, 768) * 0.4
    if width > 720:  # the result is seen while one draws
        assert result["x"] > box["x"] + box["width"] and result["y"] < box["y"] + box["height"]
    else:
        assert result["y"] > box["y"] + box["height"]
    studio.check()


def test_addresses_of_tabs_open_them(studio: Driver) -> None:
    for tab in ("train", "measure", "make"):
        studio.page.evaluate(f"location.hash = '{tab}'")
        studio.page.locator(f"#{tab}").wait_for()
    assert studio.page.locator("[role=tabpanel]:visible").count() == 1


def test_dark_and_light_follow_the_system_and_a_switch(studio: Driver) -> None:
    page = studio.page
    ground = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(ground)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    assert dark != light
    page.click("#theme")
    page.click("#theme")
    assert page.evaluate(ground) == dark
    page.reload()
    studio.ready()
    assert page.evaluate(ground) == dark


def test_nothing_is_asked_of_another_host(page: Any, server: tuple[str, Any]) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    studio = Driver(page, server[0]).open()
    for tab in TABS:
        page.click(f"#tab-{tab}")
        studio.settled()
    allowed = (server[0], "data:", "blob:")
    assert [url for url in asked if not url.startswith(allowed)] == []
    studio.check()
