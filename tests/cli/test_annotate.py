from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from zeroconv.conditions import annotate


def test_one_picture(zeroconv, photo: Path, tmp_path: Path) -> None:
    result = zeroconv(
        "annotate", "canny", photo, "--out", tmp_path / "edges.png", "--set", "low=50", "--set", "high=90"
    )
    assert result.exit_code == 0, result.output
    drawn = np.asarray(Image.open(tmp_path / "edges.png"))
    assert (drawn == np.asarray(annotate("canny", Image.open(photo), low=50, high=90))).all()
    assert drawn.any()


def test_a_folder_is_taken_up_where_it_stopped(zeroconv, tmp_path: Path) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "hints"
    (pictures / "deep").mkdir(parents=True)
    for i in range(20):
        picture = Image.new("RGB", (40, 30), "white")
        picture.paste((0, 0, 90), (5, 5, 10 + i, 20))
        picture.save(pictures / ("deep" if i % 2 else ".") / f"{i:02d}.jpg", quality=95)
    (pictures / "notes.txt").write_text("not a picture")
    report = json.loads(zeroconv("annotate", "canny", pictures, "--out", out, "--json", "--workers", 2).stdout)
    assert (report["drawn"], report["kept"]) == (20, 0)
    assert (out / "deep" / "03.png").is_file()
    assert (out / "04.png").is_file()

    (out / "04.png").unlink()
    Image.new("RGB", (40, 30)).save(out / "06.png")  # stays as it is
    report = json.loads(zeroconv("annotate", "canny", pictures, "--out", out, "--json").stdout)
    assert (report["drawn"], report["kept"]) == (1, 19)
    assert np.asarray(Image.open(out / "04.png")).any()
    assert not np.asarray(Image.open(out / "06.png")).any()


def test_two_pictures_for_one_hint_are_refused(zeroconv, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / "in" / name)
    result = zeroconv("annotate", "canny", tmp_path / "in", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "rename one of them" in result.stderr
