"""Names from data are labels: safe on every file system, and never a way out of the data set."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroconv.data.reading.names import distinct, escapes, inside, label, same_file, shown
from zeroconv.errors import UserError

BAD = (
    *("../x", "/etc/passwd", "..\\..\\x", "C:\\x", "C:x", "\\\\host\\share\\x", "a/../../b"),
    *("~/.bashrc", ".bashrc", "a\0b", "a\nb", "CON", "con.png", "aux.", "NUL.txt", "com¹"),
    *("x" * 300, "é" * 300, "a/" * 400 + "b", "", ".", "..", "/", "a ", "a.", "\u202egnp.exe"),
    *("\ud800", "a:b", "a?b*", "LPT1 ", " ", "\u200b", "...", "a/./b", "a//b", "con/aux/prn"),
)


def is_safe(made: str) -> bool:
    parts = made.split("/")
    devices = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
        f"{n}{i}" for n in ("com", "lpt") for i in "123456789"
    }
    return (
        bool(made)
        and len(made.encode()) <= 480
        and "\\" not in made
        and all(
            part and part[0] != "." and part[-1] not in ". " and len(part.encode()) <= 120
            for part in parts
        )
        and all(part.split(".")[0].casefold() not in devices for part in parts)
        and not any(unicodedata.category(c) in ("Cc", "Cf", "Cs") or c in '<>:"|?*' for c in made)
        and unicodedata.is_normalized("NFC", made)
        and not os.path.isabs(made)
    )


@pytest.mark.parametrize("name", BAD)
def test_label_of_a_bad_name_is_a_safe_name(name: str) -> None:
    assert is_safe(label(name)), label(name)


@given(st.text() | st.text(alphabet="./\\:~ \0Ccon\ud800\u0301é"))
def test_label_of_any_text_is_safe_and_stays_as_it_is(name: str) -> None:
    made = label(name)
    assert is_safe(made), made
    assert label(made) == made


@pytest.mark.parametrize(
    "name", ["a", "images/a", "10_cats/tabby 1", "Ünicode/日本", "a.b.c", "x-1_y"]
)
def test_label_leaves_good_names_alone(name: str) -> None:
    assert label(name) == name


def test_label_keeps_long_names_apart() -> None:
    assert label("x" * 300 + "1") != label("x" * 300 + "2")
    assert label("a/" * 300 + "1") != label("b/" * 300 + "1")


def test_distinct_finds_twins_by_case_and_accents() -> None:
    assert distinct(["a", "b", "A", "caf\u00e9", "cafe\u0301"]) == [(0, 2), (3, 4)]
    assert not distinct(["x²", "x2", "straße", "strasse"])
    assert same_file("É") == same_file("e\u0301")


@pytest.mark.parametrize(
    "name",
    [
        "../secret.txt",
        "/etc/passwd",
        "..\\secret.txt",
        "link.png",
        "linked/secret.txt",
        "a/../../secret.txt",
        "circle",
    ],
)
def test_inside_refuses_what_leads_out_and_links_may_be_allowed(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "set"
    (folder / "a").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link.png").symlink_to(tmp_path / "secret.txt")
    (folder / "linked").symlink_to(tmp_path)
    if name == "circle":
        (folder / "circle").symlink_to(folder / "circle")
        assert not inside(folder, name).exists()
        return
    with pytest.raises(UserError, match=r"leads out of the data set's folder .*\?links=true"):
        inside(folder, name)
    assert inside(folder, name, None).is_file()
    assert inside(folder, name, (tmp_path, Path("/etc"))).is_file()


def test_inside_finds_names_of_other_systems(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "cafe\u0301.png").touch()
    (tmp_path / "link.png").symlink_to("a/cafe\u0301.png")
    assert inside(tmp_path, "a\\caf\u00e9.png").is_file()
    assert inside(tmp_path, "link.png").is_file()
    assert inside(tmp_path, str(tmp_path / "link.png")).is_file()
    (tmp_path / "other").symlink_to(tmp_path)  # the folder itself may be a link
    assert inside(tmp_path / "other", "link.png").is_file()


@given(st.text(max_size=40) | st.text(alphabet="../\\\ud800\0a", max_size=9))
def test_inside_never_gives_a_path_outside(name: str) -> None:
    folder = Path("/nonexistent/set")
    try:
        path = inside(folder, name)
    except UserError:
        return
    assert Path(os.path.realpath(path)).is_relative_to(folder)


@given(st.text())
def test_shown_is_one_short_line_of_utf8(name: str) -> None:
    assert len(shown(name)) <= 210 and "\n" not in shown(name)
    shown(name).encode()


def test_escapes_counts_depth() -> None:
    assert [escapes(n) for n in ("../a", "a/../b", "a/../../b", "a\\..\\..\\b", "./a", "..a")] == [
        True, False, True, True, False, False,
    ]  # fmt: skip
