"""Lists of pictures: columns of many tools, encodings, and what is wrong in a line, named with its
number.
"""

from __future__ import annotations

import codecs
import csv
import json
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.tiny_shards import shade
from zeroconv.data import open_dataset
from zeroconv.data.sources.columns import USUAL, Columns, captions
from zeroconv.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:passed over")
HINTS = [name for name in USUAL.conditioning_image_column if name != "image"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, grey in (("a.png", 10), ("b.png", 20), ("h.png", 110), ("k.png", 120)):
        Image.new("RGB", (16, 16), (grey,) * 3).save(tmp_path / name)
    return tmp_path


def write(folder: Path, *lines: dict | str) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "metadata.jsonl").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", HINTS)
@pytest.mark.parametrize("image", ["file_name", "image", "target", "image_path"])
@pytest.mark.parametrize("caption", ["text", "caption", "prompt", "description"])
def test_columns_of_other_tools_are_read(folder: Path, name: str, image: str, caption: str) -> None:
    write(folder, {image: "a.png", caption: "a", name: "h.png"})
    example = open_dataset(folder, condition="canny")[0]
    assert (shade(example.hint), shade(example.image), example.text) == (110, 10, ("a",))


@pytest.mark.parametrize("name", ["source", "control", "condition", "conditioning"])
def test_a_column_that_holds_no_picture_is_no_hint(folder: Path, name: str) -> None:
    write(folder, {"file_name": "a.png", "text": "a", name: "flickr"})
    with pytest.warns(
        UserWarning, match=f"columns that are not used: {name}; there is no column of hints"
    ):
        assert open_dataset(folder)[0].hint is None


@pytest.mark.parametrize("lacking", [None, ""])
@pytest.mark.parametrize("name", ["conditioning_image", "control_image", "canny"])
def test_a_missing_hint_is_refused_and_never_drawn(
    folder: Path, name: str, lacking: str | None
) -> None:
    write(
        folder,
        {"file_name": "a.png", "text": "a", name: "h.png"},
        {"file_name": "b.png", "text": "b", name: lacking},
    )
    with pytest.raises(
        UserError, match=r"(hint for 1 of 2 pictures|canny hints, but none for b\.png)"
    ):
        open_dataset(folder, condition="canny")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ({"raw": "a", "tokens": ["x"]}, ("a",)),
        ([{"raw": "a", "sentid": 1}, {"raw": "b"}], ("a", "b")),
        ({"raw": ["a", "b"]}, ("a", "b")),
        ({"text": {"raw": "a"}}, ("a",)),
        (b"caf\xc3\xa9", ("café",)),
        ("", ("",)),
    ],
)
def test_captions_of_every_layout_are_read(value: object, expected: tuple[str, ...]) -> None:
    assert captions(value) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "null"),
        ([], "empty"),
        ([None], "null"),
        ({"tokens": ["a"]}, "object with tokens"),
        (3, "not int"),
        ([["a", 3]], "not int"),
        ("a\0", "NUL"),
        ("\ud800", "surrogate"),
        (["x"] * 2000, "2,000 captions"),
        (b"\xff", "save the file as UTF-8"),
    ],
)
def test_captions_that_cannot_be_used_are_named(value: object, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        captions(value)


PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=5)
NESTED = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["raw", "text", "x"]), inner)
    ),
    max_leaves=8,
)


@given(NESTED)
def test_captions_of_any_value_are_texts_or_one_error(value: object) -> None:
    try:
        texts = captions(value)
    except (TypeError, ValueError):
        return
    assert texts and all(isinstance(text, str) for text in texts)
    "".join(texts).encode()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file_name": "a.png", "text": null}', "line 2: .*null"),
        ('{"file_name": "a.png"}', "line 2: .*lacks 'text'; it has file_name"),
        ('{"file_name": "a.png", "text": "x", "text": "y"}', "line 2: .*'text' is there twice"),
        ('{"file_name": null, "text": "x"}', "line 2: .*no name of a file"),
        ('{"file_name": 3, "text": "x"}', "line 2: .*no name of a file"),
        ('{"file_name": "a\\u0000.png", "text": "x"}', "line 2: .*no name of a file"),
        ('{"file_name": "\\ud800.png", "text": "x"}', "line 2: .*no name of a file"),
        ('{"file_name": "a.png", "text": "\\ud800"}', "line 2: .*surrogate"),
        ('{"file_name": "a.png", "text": "x\\u0000"}', "line 2: .*NUL"),
        ('["a.png", "x"]', "line 2: .*a list, no object"),
        ("[", "line 2: .*over several lines"),
        ("3", "line 2: .*a int, no object"),
        ("[" * 100_000, "line 2"),
        ('{"file_name": "a.png", "text": ' + "9" * 5000 + "}", "line 2"),
        ('{"file_name": "../a.png", "text": "x"}', "line 2: .*leads out"),
        ('{"file_name": "/etc/hostname.png", "text": "x"}', "line 2: .*leads out"),
        (
            '{"file_name": "a.png", "text": "x", "conditioning_image": "..\\\\h.png"}',
            "line 2: .*leads out",
        ),
        ('{"file_name": "a.png", "text": "x", "pose": "../people.json"}', "line 2: .*leads out"),
        ('{"file_name": "a.png", "text": "x", "canny": "../x.png"}', "line 2: .*leads out"),
        ("x" * 2_000_000, "line 2: longer than"),
        ("not json", "line 2"),
    ],
)
def test_a_bad_line_is_named_with_its_number(folder: Path, line: str, message: str) -> None:
    write(folder, {"file_name": "a.png", "text": "x"}, line)
    with pytest.raises(UserError, match=rf"metadata\.jsonl, {message}"):
        open_dataset(folder)


@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_lists_in_every_encoding(folder: Path, mark: str) -> None:
    (folder / "metadata.jsonl").write_text(
        '{"file_name": "a.png", "text": "a plain café"}\n', encoding=mark
    )
    assert open_dataset(folder)[0].caption == "a plain café"
    (folder / "metadata.jsonl").unlink()
    (folder / "metadata.csv").write_text("file_name,text\na.png,a plain café\n", encoding=mark)
    assert open_dataset(folder)[0].caption == "a plain café"


def test_a_list_in_windows_1252_is_named_with_its_line(folder: Path) -> None:
    (folder / "metadata.csv").write_text(
        "file_name,text\na.png,x\nb.png,un café\n", encoding="cp1252"
    )
    with pytest.raises(
        UserError, match=r"metadata\.csv, line 3: byte 0xe9 .* save the file as UTF-8"
    ):
        open_dataset(folder)


@pytest.mark.parametrize("between", [",", ";", "\t"])
def test_csv_of_spreadsheets_is_read(folder: Path, between: str) -> None:
    rows = [
        ["file_name", "text", "hint"],
        ["a.png", 'a, "quoted"; cat', "h.png"],
        ["b.png", "two\nlines", "k.png"],
    ]
    with open(folder / "metadata.csv", "w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=between).writerows(rows)
    examples = open_dataset(folder)
    assert [e.caption for e in examples] == ['a, "quoted"; cat', "two\nlines"]
    assert [shade(e.hint) for e in examples] == [110, 120]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,text\na.png,a cat, black\n", "line 2: 3 fields, and the first line names 2"),
        ("file_name,text\na.png\n", "line 2: 1 fields"),
        ('file_name,text\na.png,"never closed\nb.png,x\n', "double quote never closed"),
        ("file_name,text,text\na.png,x,y\n", "line 1: two columns have one name"),
        ("name,words\na.png,x\n", "line 2: .*it has name, words"),
        ('file_name,text\na.png,"' + "x" * 1_500_000 + '"\n', "line 2: longer than"),
        ('file_name,text\na.png,"' + "x\n" * 800_000 + '"\n', "field larger"),
    ],
)
def test_csv_that_is_wrong_is_one_sentence(folder: Path, text: str, message: str) -> None:
    (folder / "metadata.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        open_dataset(folder)


def test_links_that_lead_out_are_refused_when_read_and_may_be_allowed(
    folder: Path, tmp_path_factory
) -> None:
    away = tmp_path_factory.mktemp("away") / "x.png"
    Image.new("RGB", (16, 16), (77,) * 3).save(away)
    (folder / "link.png").symlink_to(away)
    write(folder, {"file_name": "link.png", "text": "x"})
    with pytest.raises(UserError, match=r"leads out .*\?links=true"):
        open_dataset(f"{folder}")[0]
    assert shade(open_dataset(f"{folder}?links=true")[0].image) == 77
    write(folder, {"file_name": str(away), "text": "x"})
    assert shade(open_dataset(f"{folder}?links=true")[0].image) == 77
    with pytest.raises(UserError, match=r"write links=true"):
        open_dataset(f"{folder}?links=yes")


def test_a_key_of_what_leads_out_reads_nothing(folder: Path) -> None:
    (folder / "pipe.png").symlink_to("/dev/zero")
    write(folder, {"file_name": "pipe.png", "text": "x"})
    assert "refused" in open_dataset(folder).key(0)
    assert "missing" not in open_dataset(folder).key(0)


def test_lists_note_pictures_that_no_line_names(folder: Path) -> None:
    (folder / "a.txt").write_text("words")
    (folder / "b.psd").touch()
    (folder / ".c.png").touch()
    write(folder, {"file_name": "a.png", "text": "x"})
    with pytest.warns(
        UserWarning,
        match=r"3 pictures that no line names, b\.png the first; 1 texts .*1 \.psd.*1 hidden",
    ):
        open_dataset(folder)


LINE = st.fixed_dictionaries(
    {"file_name": st.sampled_from(["a.png", "b.png", "../a.png", "", None, 3])},
    optional={
        "text": st.text(max_size=5)
        | st.none()
        | st.lists(st.text(max_size=3), max_size=2)
        | st.integers(),
        **{
            name: st.sampled_from(["h.png", "k.png", "", None, "word", "../x.png"])
            for name in ("hint", "canny", "source")
        },
        "pose": st.sampled_from(["p.json", "h.png", None]),
        "split": st.sampled_from(["train", "test", None, 3]),
    },
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(LINE, min_size=1, max_size=3),
    st.sampled_from(["utf-8", "utf-16", "utf-8-sig", "cp1252"]),
)
def test_any_list_is_read_or_refused_in_one_sentence(
    folder: Path, lines: list[dict], encoding: str
) -> None:
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / "metadata.jsonl").write_text(text, encoding=encoding)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = open_dataset(folder, split="train", condition="canny")
        except UserError:
            return
        for i in range(len(dataset)):
            row = dataset.sources[0].rows[i]
            try:
                example = dataset[i]
            except UserError:
                continue
            assert (row.hint_of("canny") is not None) <= (shade(example.hint) in (110, 120))


def test_columns_named_in_a_spec_count_alone(folder: Path) -> None:
    write(
        folder, {"file_name": "a.png", "text": "x", "hint": "h.png", "mine": "k.png", "words": "y"}
    )
    example = open_dataset(f"{folder}?conditioning_image_column=mine&caption_column=words")[0]
    assert (shade(example.hint), example.caption) == (120, "y")
    assert Columns.of({"caption_column": "words"}).caption_column == ("words",)


def test_marks_are_stripped_from_the_first_key(folder: Path) -> None:
    (folder / "metadata.csv").write_bytes(codecs.BOM_UTF8 + b"file_name,text\na.png,x\n")
    assert open_dataset(folder)[0].caption == "x"


JOINTS = [0.5, 0.5, 1.0] * 18


@pytest.mark.parametrize(
    "content",
    [
        {"canvas_width": 0, "canvas_height": 0, "people": [{"pose_keypoints_2d": JOINTS}]},
        {"canvas_width": 1e400, "canvas_height": 1, "people": []},
        {
            "canvas_width": 9,
            "canvas_height": 9,
            "people": [{"pose_keypoints_2d": [float("nan")] * 54}],
        },
        {"canvas_width": 9, "canvas_height": 9, "people": [{"pose_keypoints_2d": [1]}]},
        {"canvas_width": None},
        [],
        3,
        "x",
        {"people": None},
        [[[]]],
    ],
)
def test_joints_that_are_none_set_their_picture_aside(folder: Path, content: object) -> None:
    (folder / "p.json").write_text(json.dumps(content))
    write(folder, {"file_name": "a.png", "text": "x", "pose": "p.json"})
    with pytest.raises(UserError, match=r"p\.json cannot be read as OpenPose's JSON"):
        open_dataset(folder)[0]
