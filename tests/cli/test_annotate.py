"""`zeroconv annotate`: a picture, a folder, a data set; parameters, formats, broken pictures, bad
input.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zeroconv.conditions import annotate
from zeroconv.data import open_dataset


def test_one_picture(zeroconv, photo: Path, tmp_path: Path) -> None:
    result = zeroconv(
        "annotate",
        "canny",
        photo,
        "--out",
        tmp_path / "edges.png",
        "--set",
        "low=50",
        "--set",
        "high=90",
    )
    assert result.exit_code == 0, result.output
    drawn = np.asarray(Image.open(tmp_path / "edges.png"))
    assert (drawn == np.asarray(annotate("canny", Image.open(photo), low=50, high=90))).all()
    assert drawn.any()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for i in range(12):
        picture = Image.new("RGB", (40, 30), "white")
        picture.paste((0, 0, 90), (5, 5, 10 + i, 20))
        path = folder / ("deep" if i % 2 else ".") / f"{i:02d}.jpg"
        picture.save(path, quality=95)
        path.with_suffix(".txt").write_text(f"caption {i}\n")
    return folder


def test_a_folder_becomes_a_training_set(zeroconv, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    report = json.loads(
        zeroconv("annotate", "canny,softedge", pictures, "--out", out, "--json").stdout
    )
    assert (report["drawn"], report["kept"], report["broken"]) == (12, 0, {})
    assert (out / "images/deep/03.jpg").read_bytes() == (pictures / "deep/03.jpg").read_bytes()
    for condition in ("canny", "softedge"):
        example = open_dataset(out, condition=condition)[3]
        assert example.text == ("caption 6",) and example.key == "images/06.jpg"
        assert example.hint.tobytes() == annotate(condition, example.image).tobytes()

    again = json.loads(
        zeroconv("annotate", "canny,softedge", pictures, "--out", out, "--json").stdout
    )
    assert (again["drawn"], again["kept"]) == (0, 12)
    (out / "canny/04.png").unlink()
    Image.new("RGB", (40, 30), "red").save(pictures / "06.jpg")
    third = json.loads(
        zeroconv("annotate", "canny,softedge", pictures, "--out", out, "--json").stdout
    )
    assert (third["drawn"], third["kept"]) == (2, 10)
    assert (out / "canny/04.png").is_file() and not np.asarray(
        Image.open(out / "canny/06.png")
    ).any()


def test_other_parameters_draw_anew(zeroconv, pictures: Path, tmp_path: Path) -> None:
    arguments = ("annotate", "canny", pictures, "--out", tmp_path / "set", "--json", "--workers", 1)
    assert json.loads(zeroconv(*arguments).stdout)["drawn"] == 12
    assert (
        json.loads(zeroconv(*arguments, "--set", "low=1", "--set", "high=2").stdout)["drawn"] == 12
    )
    assert (
        json.loads(zeroconv(*arguments, "--set", "low=1", "--set", "high=2").stdout)["drawn"] == 0
    )


def test_a_broken_picture_is_listed_and_the_rest_is_done(
    zeroconv, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "05b.png").write_bytes(b"this is no picture")
    result = zeroconv("annotate", "canny", pictures, "--out", tmp_path / "set")
    assert result.exit_code == 3 and "05b.png" in result.stderr
    assert list(json.loads((tmp_path / "set/broken.json").read_text())) == ["05b.png"]
    assert len(open_dataset(tmp_path / "set")) == 12
    Image.new("RGB", (40, 30), "red").save(pictures / "05b.png")
    assert zeroconv("annotate", "canny", pictures, "--out", tmp_path / "set").exit_code == 0
    assert not (tmp_path / "set/broken.json").exists() and len(open_dataset(tmp_path / "set")) == 13


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_shards_hold_the_same_examples(zeroconv, pictures: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "set"
    result = zeroconv("annotate", "canny", pictures, "--out", out, "--format", kind, "--shard", 5)
    assert result.exit_code == 0, result.output
    plain = open_dataset(out)
    (out / "metadata.jsonl").rename(tmp_path / "away.jsonl")
    packed = open_dataset(out)
    assert len(packed) == len(plain) == 12 and len(list((out / "data").glob(f"*.{kind}"))) == 3
    expected = {e.caption: (e.image.tobytes(), e.hint.tobytes()) for e in plain}
    assert {e.caption: (e.image.tobytes(), e.hint.tobytes()) for e in packed} == expected
    assert len({packed.key(i) for i in range(12)}) == 12
    shard = sorted((out / "data").glob(f"*.{kind}"))[0]
    shard.write_bytes(b"junk")
    with pytest.raises(ValueError, match="cannot be read"):
        open_dataset(out)


def test_scenes_bring_exact_maps_and_joints(zeroconv, tmp_path: Path) -> None:
    out = tmp_path / "set"
    spec = "playroom:test:2?only=person"
    result = zeroconv("annotate", "pose,depth,lines", spec, "--size", 64, "--out", out)
    assert result.exit_code == 0, result.output
    for condition in ("pose", "depth", "lines"):
        drawn, theirs = (open_dataset(s, condition=condition, size=64)[1] for s in (str(out), spec))
        assert drawn.hint.tobytes() == theirs.hint.tobytes() and drawn.caption == theirs.caption
    people = open_dataset(out, condition="pose")[1].people
    assert (
        np.abs(
            people[0][:, :2] - open_dataset(spec, condition="pose", size=64)[1].people[0][:, :2]
        ).max()
        < 0.01
    )


def test_two_pictures_for_one_hint_are_refused(zeroconv, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / "in" / name)
    result = zeroconv("annotate", "canny", tmp_path / "in", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "rename one of them" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("canny,cany", "stickers"), "did you mean 'canny'"),
        ((",", "stickers"), "no condition"),
        (("canny,depth", "stickers", "--set", "low=1"), "one condition"),
        (("canny", "stickers", "--set", "weight=1"), "no parameter 'weight'"),
        (("canny", "stickers", "--engine", "spark"), "choose local or ray"),
        (("canny", "stickers", "--format", "zip"), "choose imagefolder"),
        (("canny", "nowhere/"), "no data folder"),
    ],
)
def test_bad_input_gets_one_sentence(zeroconv, tmp_path: Path, arguments, message: str) -> None:
    result = zeroconv("annotate", *arguments, "--out", tmp_path / "out")
    assert (
        result.exit_code == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1
    )


def test_annotate_refuses_what_no_network_reads_with_the_way_to_mend_it(
    zeroconv, photo: Path, tmp_path: Path
) -> None:
    result = zeroconv("annotate", "depth", photo, "--out", tmp_path / "d.png")
    assert result.exit_code == 2 and "--backend" in result.stderr and "Apache-2.0" in result.stderr
    listed = json.loads(zeroconv("annotators", "--json").stdout)
    assert {"hed", "posenet", "depth"} <= set(listed) and all(a["licence"] for a in listed.values())
    assert zeroconv("annotators", "sam").exit_code == 2
