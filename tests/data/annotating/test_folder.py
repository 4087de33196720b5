"""What annotating writes: only its own files, only in OUT, whatever the data calls its pictures."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tests.helpers.tiny_shards import png
from zeroconv.data import open_dataset
from zeroconv.data.annotating.processes import on_cores
from zeroconv.data.annotating.run import Job, annotate_dataset
from zeroconv.data.reading.journal import BEGUN, JOURNAL, read_journal
from zeroconv.errors import UserError
from zeroconv.files import lock_folder


def tree(folder: Path) -> dict[str, bytes | str]:
    return {
        str(p.relative_to(folder)): os.readlink(p)
        if p.is_symlink()
        else p.read_bytes()
        if p.is_file()
        else "other"
        for p in sorted(folder.rglob("*"))
        if not (p.is_dir() and not p.is_symlink())
    }


def pictures(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(number + 1))
    return folder


def annotate(spec: object, out: Path, names: tuple[str, ...] = ("canny",), **options):
    return annotate_dataset(
        Job(open_dataset(str(spec), wordless=True, **options), names, out), workers=1
    )


EVIL = [
    "../x",
    "../../home/x",
    "/etc/x",
    "C:\\x",
    "..\\x",
    "CON",
    "x" * 200,
    "a/../../x",
    ".bashrc",
    "a\nb",
    "\u202ex",
    "é",
]


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_shards_of_any_names_are_annotated_inside_out(tmp_path: Path, kind: str) -> None:
    (tmp_path / "set").mkdir()
    path = tmp_path / "set" / f"00000-of-00001.{kind}"
    if kind == "tar":
        with tarfile.open(path, "w") as archive:
            for number, name in enumerate(EVIL):
                for end, content in (
                    (".png", png(number + 1)),
                    (".txt", f"words {number}".encode()),
                ):
                    if Path(name).name.startswith(".") and "\\" not in name:
                        continue
                    info = tarfile.TarInfo(name + end)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    else:
        cells = [{"bytes": png(n + 1), "path": name} for n, name in enumerate(EVIL)]
        parquet.write_table(
            pyarrow.table({"image": cells, "text": [f"words {n}" for n in range(len(EVIL))]}), path
        )
    before = tree(tmp_path)
    dataset = open_dataset(tmp_path / "set")
    report = annotate(tmp_path / "set", tmp_path / "out")
    assert not report.broken and report.drawn == len(dataset) >= len(EVIL) - 3
    assert {k: v for k, v in tree(tmp_path).items() if not k.startswith("out/")} == before
    written = open_dataset(tmp_path / "out")
    assert [e.caption for e in written] == [e.caption for e in dataset]
    assert [e.image.tobytes() for e in written] == [e.image.tobytes() for e in dataset]
    assert annotate(tmp_path / "set", tmp_path / "out").drawn == 0


@pytest.mark.parametrize("column", ["file_name", "conditioning_image", "canny"])
@pytest.mark.parametrize("name", ["../photos/x.png", "/photos/x.png", "..\\photos\\x.png"])
def test_a_list_that_names_files_outside_writes_nothing_outside(
    tmp_path: Path, column: str, name: str
) -> None:
    pictures(tmp_path / "photos", "x.png")
    pictures(tmp_path / "set", "a.png")
    name = name if not name.startswith("/") else f"{tmp_path}{name}"
    row = {"file_name": "a.png", "text": "x", column: name}
    (tmp_path / "set" / "metadata.jsonl").write_text(json.dumps(row))
    before = tree(tmp_path)
    with pytest.raises(UserError, match="leads out"):
        annotate(tmp_path / "set", tmp_path / "out")
    assert {k: v for k, v in tree(tmp_path).items() if not k.startswith("out/")} == before
    # allowed: read there, written in OUT
    annotate(f"{tmp_path / 'set'}?links=true", tmp_path / "out")
    assert {k: v for k, v in tree(tmp_path).items() if not k.startswith("out/")} == before


def test_a_picture_by_a_link_that_leads_out_is_set_aside(tmp_path: Path) -> None:
    pictures(tmp_path / "away", "secret.png")
    pictures(tmp_path / "set", "a.png")
    (tmp_path / "set" / "b.png").symlink_to(tmp_path / "away" / "secret.png")
    report = annotate(tmp_path / "set", tmp_path / "out")
    assert list(report.broken) == ["b.png"] and "leads out" in report.broken["b.png"]
    assert not (tmp_path / "out/images/b.png").exists()


def test_a_picture_with_the_name_of_a_script_becomes_a_png(tmp_path: Path) -> None:
    pictures(tmp_path / "set", ".bashrc", "run.sh")
    rows = [{"file_name": n, "text": "x"} for n in (".bashrc", "run.sh")]
    (tmp_path / "set" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    annotate(tmp_path / "set", tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out/images").iterdir()) == [
        "_.bashrc.png",
        "run.png",
    ]


BYSTANDERS = [
    ".eslintrc.json",
    ".cover.png",
    "images/.cover.png",
    "canny/.x.y.json",
    "canny/mine.png",
    "notes.txt",
    "data/a.tar",
]


def test_files_of_others_in_out_stay(tmp_path: Path) -> None:
    pictures(tmp_path / "set", "a.png", "b.png")
    out = tmp_path / "out"
    for name in BYSTANDERS:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(b"mine")
    os.mkfifo(out / ".pipe.png")
    (out / ".link.png").symlink_to("/etc/passwd")
    before = tree(out)
    annotate(tmp_path / "set", out)
    annotate(tmp_path / "set", out, ("canny", "tile"))
    assert before.items() <= tree(out).items()


@pytest.mark.parametrize(
    "name",
    [
        "images/a.png",
        "images/a.jpg",
        "canny/a.png",
        "metadata.jsonl",
        "broken.json",
        "images/a.webp",
    ],
)
@pytest.mark.parametrize("kind", ["file", "link", "folder", "pipe"])
def test_what_somebody_else_wrote_is_not_replaced(tmp_path: Path, name: str, kind: str) -> None:
    pictures(tmp_path / "set", "a.png", "b.png")
    (tmp_path / "precious").write_bytes(b"mine")
    target = tmp_path / "out" / name
    target.parent.mkdir(parents=True)
    {
        "file": lambda: target.write_bytes(b"mine"),
        "link": lambda: target.symlink_to(tmp_path / "precious"),
        "folder": target.mkdir,
        "pipe": lambda: os.mkfifo(target),
    }[kind]()
    before = tree(tmp_path)
    with pytest.raises(UserError, match="zeroconv did not write it"):
        annotate(tmp_path / "set", tmp_path / "out")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["images", "canny"])
def test_a_folder_of_out_that_is_a_link_outside_is_refused(tmp_path: Path, name: str) -> None:
    pictures(tmp_path / "set", "a.png")
    (tmp_path / "away").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(tmp_path / "away")
    with pytest.raises(UserError, match="a link that leads out"):
        annotate(tmp_path / "set", tmp_path / "out")
    assert not list((tmp_path / "away").iterdir())


@pytest.mark.parametrize(
    ("spec", "out"),
    [
        ("set", "set"),
        ("set", "set/out"),
        ("set/deep", "set"),
        ("set", "link"),
        ("link", "set"),
        ("set", "set/../set"),
    ],
)
def test_out_and_pictures_lie_apart(tmp_path: Path, spec: str, out: str) -> None:
    pictures(tmp_path / "set", "a.png", "deep/b.png")
    (tmp_path / "link").symlink_to(tmp_path / "set")
    before = tree(tmp_path)
    with pytest.raises(UserError, match=r"(is the folder of the pictures|lie one in the other)"):
        annotate(tmp_path / spec, tmp_path / out)
    assert tree(tmp_path) == before


def test_a_journal_of_somebody_else_names_no_file(tmp_path: Path) -> None:
    pictures(tmp_path / "set", "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "secret").write_bytes(b"mine")
    lines = [
        {
            "name": "a",
            "key": "k",
            "text": ["x"],
            "file_name": "../secret",
            "hints": {"canny": "../secret"},
        },
        {
            "name": "../secret",
            "key": "k",
            "text": ["x"],
            "file_name": "images/../secret.png",
            "hints": {},
        },
        {
            "name": "a",
            "key": "k",
            "text": ["x"],
            "file_name": "images/a.png",
            "hints": {"..": "../a.png"},
        },
        [],
        3,
        {"name": 3},
        {"name": "a"},
        {"name": "a", "broken": 3},
        {"name": "a", "broken": "x", "before": ["../secret"]},
        {"name": "a", "broken": "x", "before": [["x"]]},
    ]
    text = "\n".join(map(json.dumps, lines)) + '\n{"name": "torn'
    (tmp_path / "out" / JOURNAL).write_text(text)
    (tmp_path / "out" / BEGUN).write_text(text)
    assert read_journal(tmp_path / "out" / JOURNAL) == {}
    annotate(tmp_path / "set", tmp_path / "out")
    assert (tmp_path / "secret").read_bytes() == b"mine"
    assert [e.key for e in open_dataset(tmp_path / "out")] == ["images/a.png"]


def test_two_at_once_in_one_folder_are_refused(tmp_path: Path) -> None:
    pictures(tmp_path / "set", "a.png")
    code = (
        "import sys, time; from zeroconv.files import lock_folder\n"
        "with lock_folder(sys.argv[1], 'x'): print(1, flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out")], stdout=subprocess.PIPE
    )
    other.stdout.readline()
    with pytest.raises(UserError, match="another process"):
        annotate(tmp_path / "set", tmp_path / "out")
    other.kill()
    other.wait()
    assert annotate(tmp_path / "set", tmp_path / "out").drawn == 1
    with lock_folder(tmp_path / "out", "nothing stays"):
        pass


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("depth",), "give --backend"),
        (("canny", "normal"), "give --backend"),
        (("segmentation",), "give --backend"),
    ],
)
def test_a_condition_without_a_backend_is_refused_before_any_work(
    tmp_path: Path, names, message: str
) -> None:
    pictures(tmp_path / "set", "a.png", "b.png")
    with pytest.raises(UserError, match=message):
        annotate(tmp_path / "set", tmp_path / "out", names)
    assert not (tmp_path / "out").exists()


def test_a_backend_that_would_not_be_used_is_refused(tmp_path: Path) -> None:
    pictures(tmp_path / "set", "a.png")
    job = Job(
        open_dataset(str(tmp_path / "set"), wordless=True),
        ("canny", "softedge"),
        tmp_path / "out",
        {},
        "hed",
    )
    with pytest.raises(UserError, match="would read none of canny, softedge"):
        annotate_dataset(job, 1)


def test_annotate_notes_hints_of_a_set_that_are_not_taken_over(tmp_path: Path) -> None:
    pictures(tmp_path / "set", "a.png", "h.png")
    (tmp_path / "set/metadata.jsonl").write_text(
        '{"file_name": "a.png", "text": "x", "hint": "h.png"}'
    )
    with pytest.warns(UserWarning, match="hints of their own, which are not taken over"):
        annotate(tmp_path / "set", tmp_path / "out")


@pytest.mark.parametrize(
    "name", [".", "./", "a/..", "..a", "images/", "images", "a.", " ", "\u3000"]
)
def test_a_list_that_names_no_picture_sets_it_aside(tmp_path: Path, name: str) -> None:
    pictures(tmp_path / "set", "a.png", "images/c.png")
    rows = [{"file_name": one, "text": "x"} for one in (name, "images/c.png")]
    (tmp_path / "set" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    report = annotate(tmp_path / "set", tmp_path / "out")
    assert len(report.broken) == 1 and len(open_dataset(tmp_path / "out")) == 1


@pytest.mark.parametrize(
    "twins", [("a.png", "A.png"), ("caf\u00e9.png", "cafe\u0301.png"), ("a.png", "a.jpg")]
)
def test_twins_of_a_folder_are_refused_with_both_names(
    tmp_path: Path, twins: tuple[str, str]
) -> None:
    pictures(tmp_path / "set", *twins)
    with pytest.raises(UserError, match=r"would both become .* rename one of them"):
        annotate(tmp_path / "set", tmp_path / "out")


def test_names_that_are_no_utf8_are_annotated(tmp_path: Path) -> None:
    pictures(tmp_path / "set", "a.png", os.fsdecode(b"caf\xe9.png"))
    (tmp_path / "set" / os.fsdecode(b"bad\xe9.png")).write_bytes(b"junk")
    report = annotate(tmp_path / "set", tmp_path / "out")
    assert len(report.broken) == 1 and len(open_dataset(tmp_path / "out")) == 2
    json.loads((tmp_path / "out/broken.json").read_text(encoding="utf-8"))


PARTS = st.sampled_from(
    [
        "a",
        "..",
        ".",
        "",
        "CON",
        "x" * 140,
        "b ",
        "é",
        "e\u0301",
        "\u202e",
        ":",
        "~",
        ".hid",
        "#1",
        "A",
    ]
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(PARTS, min_size=1, max_size=4), min_size=1, max_size=4))
def test_any_names_in_a_tar_stay_inside_out(tmp_path: Path, names: list[list[str]]) -> None:
    home = Path(str(tmp_path / f"h{len(list(tmp_path.iterdir()))}"))
    (home / "set").mkdir(parents=True)
    with tarfile.open(home / "set" / "a.tar", "w") as archive:
        for number, parts in enumerate(names):
            content = png(number)
            info = tarfile.TarInfo("/".join(parts) + ".png")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    before = tree(home)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = open_dataset(home / "set")
        except UserError:
            return
        report = annotate(home / "set", home / "out", ("tile",))
    assert report.drawn == len(dataset) and not report.broken
    assert {k: v for k, v in tree(home).items() if not k.startswith("out/")} == before
    assert len(open_dataset(home / "out")) == len(dataset)


def test_runs_of_other_conditions_and_limits_keep_what_is_there(tmp_path: Path) -> None:
    pictures(tmp_path / "set", "a.png", "b.png", "c.png")
    out = tmp_path / "out"
    for names, limit, drawn in (
        (("canny",), None, 3),
        (("canny",), 1, 0),
        (("canny",), None, 0),  # what was not asked for is still known
        (("tile",), None, 3),
        (("canny",), None, 3),  # and may be written again
        (("canny", "tile"), None, 3),
    ):
        assert annotate(tmp_path / "set", out, names, limit=limit).drawn == drawn, (names, limit)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what we wrote is no stranger
            assert len(open_dataset(out)) == (limit or 3)
    (tmp_path / "set" / "a.png").rename(tmp_path / "set" / "a.jpg")
    assert annotate(tmp_path / "set", out, ("tile",)).drawn == 3
    (tmp_path / "set" / "a.jpg").rename(tmp_path / "set" / "a.png")
    (tmp_path / "set" / "b.png").write_bytes(b"junk")
    assert list(annotate(tmp_path / "set", out, ("tile",)).broken) == ["b.png"]
    (tmp_path / "set" / "b.png").write_bytes(png(9))
    assert not annotate(tmp_path / "set", out, ("canny",)).broken


def die(i: int) -> dict:
    os.kill(os.getpid(), 9)
    return {}


def test_a_worker_that_is_killed_is_one_sentence() -> None:
    with pytest.raises(UserError, match="fewer --workers"):
        list(on_cores(die, range(8), 2))
