"""A server on the playroom with its page, and the page driven in a headless Chromium."""

from __future__ import annotations

import io
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from PIL import Image

from zeroconv.serving.app import create_app
from zeroconv.serving.running import open_socket
from zeroconv.serving.settings import ServerSettings

SECONDS = 240  # that a picture may take on a busy machine
# pictures are loaded, animations have ended, and the next frame is laid out as this one
RESTS = """() => new Promise((resolve) => {
  const layout = () => [...document.querySelectorAll("body *")].map((one) => {
    const box = one.getBoundingClientRect();
    return [box.x, box.y, box.width, box.height].map(Math.round).join();
  }).join(";");
  const inView = (box) => box.width && box.bottom > 0 && box.top < innerHeight;
  const loaded = [...document.images].every((one) =>
    one.complete || (one.loading === "lazy" && !inView(one.getBoundingClientRect())));
  const moves = document.getAnimations().some((one) => one.playState === "running");
  const before = layout();
  requestAnimationFrame(() => requestAnimationFrame(() =>
    resolve(loaded && !moves && layout() === before)));
})"""


def chromium() -> str:
    """The path of Debian's Chromium; skips the test where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("there is no chromium on the PATH; apt-get install chromium")
    return path


@contextmanager
def serving(settings: ServerSettings) -> Iterator[tuple[str, Any]]:
    """The address of a server in a thread of its own, and its application."""
    import uvicorn

    opened = open_socket(settings.host, 0)
    app = create_app(settings)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{opened.getsockname()[1]}", app
    finally:
        server.should_exit = True
        thread.join(20)
        opened.close()


class Driver:
    """The page in one tab. Points are pixels of the studio's canvas."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.address = page, address
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._console)
        self._asked: set[Any] = set()  # requests without an answer
        page.on("request", lambda request: self._asked.add(request))
        for event in ("requestfinished", "requestfailed"):
            page.on(event, lambda request: self._asked.discard(request))

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def open(self, tab: str = "make") -> Driver:
        """Loads the page, after a first visit."""
        self.page.goto(f"{self.address}/#{tab}")
        self.ready()
        if self.page.locator("#welcome").is_visible():
            self.page.keyboard.press("Escape")
        return self

    def ready(self) -> None:
        self.page.locator("html[data-ready]").wait_for(timeout=SECONDS * 1000)

    def settled(self) -> None:
        """Waits until every answer is there, every picture is drawn, no animation runs, and two
        frames have the same layout.
        """

        def rests() -> bool:
            asked = [one for one in self._asked if not one.url.endswith("/events")]
            return not asked and self.page.evaluate(RESTS) and not self._answered_late()

        self.eventually(rests, "the page rests")

    def _answered_late(self) -> bool:
        """Whether a request was sent while the page was looked at."""
        return any(not one.url.endswith("/events") for one in self._asked)

    def eventually(self, holds: Callable[[], bool], what: str) -> None:
        """Waits for something that a test can see, as long as a picture may take."""
        until = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < until, f"not in {SECONDS} s: {what}; {self.errors}"
            self.page.wait_for_timeout(50)

    # ---------------------------------------------------------------- canvas

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A point of the canvas → pixels of the window."""
        where = "([x, y]) => { const v = zeroconv.view, b = v.canvas.getBoundingClientRect();"
        where += " return [b.left + v.left + x * v.scale, b.top + v.top + y * v.scale]; }"
        left, top = self.page.evaluate(where, [x, y])
        return left, top

    def stroke(self, *points: tuple[float, float]) -> None:
        """The pen down at the first point, through the others, and up."""
        self.page.locator("#canvas").scroll_into_view_if_needed()
        self.page.mouse.move(*self.at(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.at(*point), steps=6)
        self.page.mouse.up()

    def tool(self, name: str) -> None:
        self.page.click(f'[data-tool="{name}"]')

    def layer(self, name: str) -> None:
        """Selects a layer: picture, mask, or a control's condition."""
        self.page.click(f'[data-layer="{name}"]')

    def add_control(self, name: str) -> None:
        self.page.select_option("#add-control", name)

    def value(self, expression: str) -> Any:
        """Of an expression on `studio`, the page's parts."""
        return self.page.evaluate(f"() => {{ const studio = zeroconv; return {expression}; }}")

    def until(self, expression: str) -> None:
        """Waits for an expression on `studio` to be true."""
        self.eventually(lambda: bool(self.value(expression)), expression)

    def pen(self, size: int) -> None:
        self.page.evaluate("(size) => zeroconv.tools.set({ size })", size)

    # ---------------------------------------------------------------- pictures

    def ask(self, prompt: str, seed: int = 1, steps: int = 20) -> None:
        self.page.fill("#prompt", prompt)
        for name, number in (("seed", seed), ("steps", steps)):
            self.page.fill(f"#s-{name}", str(number))
            self.page.locator(f"#s-{name}").blur()

    def generate(self) -> Image.Image:
        """Makes a picture by the button and returns it."""
        before = self.value("studio.results.shown?.id ?? null")
        self.page.click("#generate")
        return self.finished(before)

    def finished(self, before: str | None) -> Image.Image:
        """The next picture that is shown after the one of this id."""
        now = "studio.results.running ? null : studio.results.shown?.id ?? null"
        self.eventually(lambda: self.value(now) not in (None, before), "a picture is shown")
        return self.picture(self.value(now))

    def picture(self, id: str) -> Image.Image:
        answer = self.page.request.get(f"{self.address}/api/v1/pictures/{id}.png")
        assert answer.ok, answer.status
        return Image.open(io.BytesIO(answer.body())).convert("RGB")

    def hint(self) -> Image.Image:
        """What the selected layer holds, as it is sent."""
        import base64

        url = self.value("studio.board.selected.url()")
        return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")

    def get(self, path: str) -> Any:
        answer = self.page.request.get(f"{self.address}/api/v1{path}")
        assert answer.ok, (answer.status, answer.text())
        return answer.json()

    def check(self) -> None:
        """No error of a script, and nothing that the content security policy refused."""
        assert not self.errors, json.dumps(self.errors, indent=1)


def png(image: Image.Image, name: str = "picture.png") -> dict[str, Any]:
    """A file for a file input."""
    content = io.BytesIO()
    image.save(content, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": content.getvalue()}


def circle(x: float, y: float, radius: float) -> Sequence[tuple[float, float]]:
    """The corners of an ellipse's box, for the tool."""
    return ((x - radius, y - radius), (x + radius, y + radius))
