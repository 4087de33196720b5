"""Drawing on the canvas, and pictures that follow what was drawn."""

from __future__ import annotations

import numpy as np
import pytest

from tests.web.driving import Driver
from zeroconv.conditions import CONDITIONS
from zeroconv.conditions.maps import PLAYROOM_COLOURS, hint_to_classes
from zeroconv.evaluation.reader import read
from zeroconv.playroom import CLASSES

pytestmark = pytest.mark.web

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def test_drawing_a_scribble_makes_a_picture_that_follows_it(studio: Driver) -> None:
    studio.add_control("scribble")
    studio.tool("ellipse")
    studio.stroke((44, 34), (96, 86))
    studio.tool("line")
    studio.stroke((0, 66), (44, 66))
    studio.stroke((96, 66), (128, 66))
    studio.ask("a large purple ball on a wooden floor in front of a pale blue wall", seed=3)
    hint = np.asarray(studio.hint())[..., 0]
    assert set(np.unique(hint)) == {0, 255}  # no anti-aliasing
    picture = np.asarray(studio.generate())
    back = CONDITIONS["scribble"].draw(picture)  # type: ignore[misc]
    assert CONDITIONS["scribble"].score(hint, back)["f1_1px"] >= 0.8


def test_drawing_tools_paint_what_their_names_say(studio: Driver) -> None:
    studio.add_control("canny")
    studio.pen(1)
    studio.stroke((10, 10), (40, 10))
    studio.tool("rectangle")
    studio.stroke((20, 30), (60, 50))
    studio.page.get_by_label("Fill shapes").check()
    studio.stroke((80, 80), (100, 90))
    drawn = np.asarray(studio.hint())[..., 0]
    assert drawn[10, 10:40].all() and drawn[30, 20:60].all() and drawn[30:50, 20].all()
    assert not drawn[40, 40] and drawn[80:90, 80:100].all()
    studio.tool("fill")
    studio.stroke((40, 40))
    assert np.asarray(studio.hint())[40, 40, 0]
    studio.tool("eraser")
    studio.pen(20)
    studio.stroke((90, 85), (91, 85))
    assert not np.asarray(studio.hint())[85, 90, 0]


def test_drawing_is_undone_and_done_again_and_survives_a_change_of_layers(studio: Driver) -> None:
    studio.add_control("scribble")
    studio.stroke((20, 20), (60, 60))
    drawn = np.asarray(studio.hint())
    studio.layer("picture")
    studio.tool("rectangle")
    studio.stroke((5, 5), (30, 30))
    studio.layer("scribble")
    assert (np.asarray(studio.hint()) == drawn).all()
    studio.page.keyboard.press("Control+z")
    assert studio.value("studio.board.picture.empty")
    studio.page.keyboard.press("Control+z")
    assert studio.value("studio.board.selected.empty")
    studio.page.keyboard.press("Control+Shift+z")
    assert (np.asarray(studio.hint()) == drawn).all()


def test_drawing_by_keys_alone(studio: Driver) -> None:
    studio.add_control("scribble")
    studio.pen(3)
    studio.page.focus("#canvas")
    press = studio.page.keyboard.press
    press("ArrowLeft")
    press("Space")
    for _ in range(4):
        press("Shift+ArrowRight")
    press("Space")
    drawn = np.asarray(studio.hint())[..., 0]
    assert drawn[64, 64:92].all() and not drawn[64, 110]


def test_drawing_classes_gives_exact_colours_and_a_room_of_these(studio: Driver) -> None:
    studio.add_control("segmentation")
    studio.page.click('[data-class="floor"]')
    studio.tool("rectangle")
    studio.stroke((0, 70), (128, 128))
    studio.page.click('[data-class="ball"]')
    studio.tool("ellipse")
    studio.stroke((40, 40), (90, 90))
    hint = np.asarray(studio.hint())
    classes = hint_to_classes(hint, PLAYROOM_COLOURS)  # refuses other colours
    ball = list(CLASSES).index("ball")
    assert set(np.unique(classes)) == {0, 1, ball}
    studio.ask("a large red ball on a blue carpet in front of a grey wall", seed=1)
    made = read([studio.generate()]).segmentation[0]
    both = ((made == ball) & (classes == ball)).sum() / ((made == ball) | (classes == ball)).sum()
    assert both > 0.8


def test_drawing_with_a_pen_is_broader_under_pressure_and_two_fingers_move_the_view(
    studio: Driver,
) -> None:
    studio.add_control("scribble")
    studio.pen(6)
    event = """([kind, id, type, points]) => {
      const canvas = document.querySelector('#canvas');
      canvas.setPointerCapture = () => {};
      points.forEach(([x, y, pressure], i) => canvas.dispatchEvent(new PointerEvent(kind ??
        (i === 0 ? 'pointerdown' : i === points.length - 1 ? 'pointerup' : 'pointermove'),
        { pointerId: id, pointerType: type, clientX: x, clientY: y, pressure, bubbles: true })));
    }"""
    a, b = studio.at(20.5, 20.5), studio.at(100.5, 20.5)
    middle = studio.at(60.5, 20.5)
    line = [[*a, 0.1], [*middle, 0.1], [*b, 1.0], [*b, 1.0]]
    studio.page.evaluate(event, [None, 7, "pen", line])
    drawn = np.asarray(studio.hint())[..., 0] > 0
    assert drawn[:, 98].sum() > drawn[:, 30].sum() >= 1
    before = studio.value("[studio.view.left, studio.view.scale]")
    for kind, id, (x, y) in (
        ("pointerdown", 11, a), ("pointerdown", 12, b),
        ("pointermove", 12, (b[0] + 60, b[1])), ("pointerup", 11, a), ("pointerup", 12, b),
    ):  # fmt: skip
        studio.page.evaluate(event, [kind, id, "touch", [[x, y, 0.5]]])
    assert studio.value("[studio.view.left, studio.view.scale]") != before
    assert ((np.asarray(studio.hint())[..., 0] > 0) == drawn).all()
