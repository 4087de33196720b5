"""The demo gallery with tiny models: every row, every picture, a page that shows them all."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zeroconv.backbones import load_backbone
from zeroconv.cli import gallery
from zeroconv.control import ControlNet
from zeroconv.errors import UserError


@pytest.fixture(scope="module")
def rows(models: Path) -> list[gallery.Row]:
    """Two rows a section, drawn by tiny models; hints as in the real gallery."""
    backbone = load_backbone(models / "base")
    rows = [*gallery.scene_rows(64), *gallery.sticker_rows(64, 2), *gallery.photo_rows(64)]
    control = ControlNet.load(models / "canny", backbone=backbone)
    # one network for all: what it draws does not matter here
    controls = {row.condition: control for row in rows}
    gallery.draw(
        rows,
        backbone,
        controls,
        steps=1,
        cfg=4.0,
        guidance="cond",
        seeds=range(2),
        print_line=lambda line: None,
    )
    return rows


def test_every_section_is_there_and_every_row_is_full(rows: list[gallery.Row]) -> None:
    assert list(dict.fromkeys(row.section for row in rows)) == list(gallery.SECTIONS)
    for row in rows:
        assert row.without is not None
        assert len(row.images) == 2
        assert row.hint.size == row.original.size == (64, 64)
        assert np.asarray(row.hint).any(), "a hint that shows nothing"
        assert (np.asarray(row.images[0]) != np.asarray(row.images[1])).any()
        assert (np.asarray(row.images[0]) != np.asarray(row.without)).any(), (
            "control changes nothing"
        )


def test_stickers_are_of_held_out_concepts(rows: list[gallery.Row]) -> None:
    from zeroconv.playroom import stickers

    trained = {
        record.concept for record in stickers.load_stickers(stickers.sample_folder(), "train")
    }
    tested = stickers.load_stickers(stickers.sample_folder(), "test")
    assert not trained & {record.concept for record in tested}
    prompts = {record.text for record in tested}
    assert {row.prompt for row in rows if row.section == "canny-stickers"} <= prompts


def test_the_photograph_has_one_hint_and_three_prompts(rows: list[gallery.Row]) -> None:
    of_section = [row for row in rows if row.section == "canny-photo"]
    assert len({row.prompt for row in of_section}) == 3
    assert len({row.hint.tobytes() for row in of_section}) == 1


def test_the_page_shows_every_picture_and_prompt(rows: list[gallery.Row], tmp_path: Path) -> None:
    page = gallery.write(rows, tmp_path / "demo", "made by a test")
    text = page.read_text()
    sources = re.findall(r'src="([^"]+)"', text)
    assert len(sources) == sum(3 + len(row.images) for row in rows)
    assert all((page.parent / source).is_file() for source in sources)
    assert all(row.prompt in text for row in rows)
    assert "http" not in text  # nothing is fetched from elsewhere
    assert Image.open(page.parent / "gallery.png").width > 5 * 128
    again = gallery.write(rows[:1], tmp_path / "demo", "made again")
    assert len(re.findall("<img", again.read_text())) == 5


def test_a_folder_with_something_else_in_it_is_left_alone(
    rows: list[gallery.Row], tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"holds thesis\.txt"):
        gallery.write(rows, tmp_path, "")
    assert (tmp_path / "thesis.txt").is_file()


def test_a_web_site_is_no_gallery(rows: list[gallery.Row], tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    for draw in (lambda: gallery.demo(tmp_path), lambda: gallery.write(rows, tmp_path, "")):
        with pytest.raises(UserError, match=r"holds index\.html"):
            draw()
    assert (tmp_path / "index.html").read_text() == "mine"
