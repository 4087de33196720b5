"""Hints drawn from pictures, poses, masks: what is shown before anything is generated."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.web.driving import Driver, png
from zeroconv.conditions import CONDITIONS
from zeroconv.evaluation.reader import read
from zeroconv.playroom import render

pytestmark = pytest.mark.web

WRIST = 4  # the right one
PERSON = "a large person in red standing on a blue carpet with a pink wall"


def test_annotating_an_upload_shows_the_hint_and_then_generates(studio: Driver) -> None:
    scene = render(20_028, size=128)
    picture = Image.fromarray(np.asarray(scene.image))
    studio.add_control("scribble")
    studio.page.set_input_files("[data-annotate]", png(picture))
    studio.page.locator("#hint-preview").wait_for()
    shown = np.asarray(studio.hint())[..., 0]
    expected = CONDITIONS["scribble"].draw(np.asarray(picture))  # type: ignore[misc]
    assert (shown == expected).all()  # the server's own bytes
    assert studio.value("studio.results.job") is None  # nothing was generated yet
    studio.ask(scene.caption, seed=2)
    back = CONDITIONS["scribble"].draw(np.asarray(studio.generate()))  # type: ignore[misc]
    assert CONDITIONS["scribble"].score(expected, back)["f1_1px"] >= 0.8


def test_annotating_with_other_options_draws_the_hint_again(studio: Driver) -> None:
    picture = Image.fromarray(np.asarray(render(20_028, size=128).image))
    studio.add_control("canny")
    studio.page.set_input_files("[data-annotate]", png(picture))
    studio.page.locator("#hint-preview").wait_for()
    first = np.asarray(studio.hint())
    studio.page.click("summary:has-text('Options')")
    studio.page.get_by_label("low").fill("5")
    studio.page.get_by_label("low").blur()
    studio.until("studio.board.history.canUndo && studio.board.selected.options.low === 5")
    before = (first > 0).sum()
    studio.eventually(lambda: (np.asarray(studio.hint()) > 0).sum() > before, "a denser hint")


def test_a_moved_joint_moves_the_arm_of_the_person(studio: Driver) -> None:
    studio.add_control("pose")
    studio.page.get_by_role("button", name="Add", exact=True).click()
    studio.ask(PERSON, seed=4)
    before = _joints(studio)
    first = studio.generate()
    id = studio.value("studio.results.shown.id")
    lowered = _closest(first, before)
    shoulder = before[WRIST - 2, :2]
    studio.stroke(tuple(before[WRIST - 1, :2]), tuple(shoulder + (-13, -2)))
    moved = _joints(studio)  # the wrist followed the elbow
    target = shoulder + (-17, -15)
    studio.stroke(tuple(moved[WRIST, :2]), tuple(target))
    after = _joints(studio)
    assert np.allclose(after[WRIST, :2], target, atol=1) and after[WRIST, 1] < before[WRIST, 1] - 30
    raised = _closest(studio.generate(), after)
    assert _pck(after, raised) >= 0.8
    side = np.ptp(after[:, :2], axis=0).max()
    assert np.linalg.norm(raised[WRIST, :2] - after[WRIST, :2]) <= 0.1 * side
    assert np.linalg.norm(lowered[WRIST, :2] - after[WRIST, :2]) > 0.2 * side
    studio.page.click(f'#history-list [data-id="{id}"] button')
    studio.page.get_by_role("button", name="Use these settings").click()
    studio.until(f"studio.board.selected.people[0]?.points[{WRIST}][1] > 50")
    assert np.allclose(_joints(studio)[:, :2], before[:, :2], atol=0.01)  # joints, not a drawing
    assert np.array_equal(np.asarray(studio.generate()), np.asarray(first))


def test_a_pose_goes_out_as_json_and_comes_in_again(studio: Driver, tmp_path: Path) -> None:
    studio.add_control("pose")
    studio.page.get_by_role("button", name="Add", exact=True).click()
    studio.page.get_by_role("button", name="Copy").click()
    studio.page.get_by_role("button", name="Mirror").click()
    with studio.page.expect_download() as download:
        studio.page.get_by_role("button", name="Save JSON").click()
    path = tmp_path / "pose.json"
    download.value.save_as(path)
    saved = json.loads(path.read_text())
    assert [len(person["pose_keypoints_2d"]) for person in saved["people"]] == [54, 54]
    drawn = np.asarray(studio.hint())
    studio.page.get_by_role("button", name="Remove", exact=True).click()
    assert (np.asarray(studio.hint()) != drawn).any()
    studio.page.set_input_files("[data-pose-json]", str(path))
    studio.page.get_by_text("People (2)").wait_for()
    assert (np.asarray(studio.hint()) == drawn).all()


def test_a_file_that_is_no_pose_gets_a_sentence(studio: Driver, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"persons": []}')
    studio.add_control("pose")
    studio.page.set_input_files("[data-pose-json]", str(tmp_path / "other.json"))
    studio.page.get_by_text("no OpenPose file").wait_for()


def test_a_masked_area_is_repainted_and_the_rest_stays(studio: Driver) -> None:
    picture = Image.fromarray(np.asarray(render(20_014, size=128).image))
    studio.page.set_input_files("#layers input[type=file]", png(picture))
    studio.layer("mask")
    studio.tool("rectangle")
    studio.stroke((8, 60), (52, 104))
    studio.ask("a large green ball and a large person in red on a blue carpet with a pink wall")
    studio.page.click("summary:has-text('From the picture layer')")
    studio.page.fill("#s-strength", "1")
    studio.page.fill("#s-mask_blur", "0")
    studio.page.locator("#s-mask_blur").blur()
    made = np.asarray(studio.generate()).astype(int)
    change = np.abs(made - np.asarray(picture).astype(int)).max(-1)
    hole = np.zeros((128, 128), bool)
    hole[60:104, 8:52] = True
    assert change[~hole].max() == 0  # outside the picture is the given one
    assert (change[hole] > 8).mean() > 0.3
    studio.layer("mask")
    studio.tool("eraser")
    studio.pen(60)
    studio.stroke((0, 80), (60, 80))
    studio.page.locator("#result-actions").get_by_role("button", name="Settings").click()
    studio.until("!studio.board.mask.empty")
    assert np.array_equal(np.asarray(studio.generate()).astype(int), made)  # mask and picture too


def test_the_region_of_a_control_is_painted_and_sent(studio: Driver) -> None:
    studio.add_control("scribble")
    studio.stroke((20, 20), (60, 60))
    studio.page.click("summary:has-text('Mode, region, curve')")
    studio.page.get_by_role("button", name="Paint where it acts").click()
    studio.tool("rectangle")
    studio.stroke((0, 0), (64, 128))
    studio.ask("a ball", seed=1, steps=4)
    studio.generate()
    newest = studio.get("/history")["items"][0]
    answer = studio.page.request.get(studio.address + newest["settings"]["controls"][0]["region"])
    region = np.asarray(Image.open(io.BytesIO(answer.body())).convert("L"))
    assert region[:, :64].all() and not region[:, 64:].any()


def _joints(studio: Driver) -> np.ndarray:
    return np.array(studio.value("studio.board.selected.people[0].points"))


def _closest(picture: Image.Image, wanted: np.ndarray) -> np.ndarray:
    """The person in the picture whose joints are nearest."""
    people = read([picture]).pose[0]
    assert people, "the reader sees nobody"
    return min(people, key=lambda p: np.linalg.norm(p[:, :2] - wanted[:, :2]))


def _pck(wanted: np.ndarray, person: np.ndarray) -> float:
    """The share of joints within a tenth of the person's larger side."""
    side = np.ptp(wanted[:, :2], axis=0).max()
    return float((np.linalg.norm(person[:, :2] - wanted[:, :2], axis=1) <= 0.1 * side).mean())
