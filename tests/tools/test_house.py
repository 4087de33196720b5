"""`python -m tools.house`: what it counts, a folder a row."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import house

SOURCE = '''"""Not a # comment."""

# one comment
import os  # noqa: F401

TEXT = "# not one either"


def short():
    return [x for x in "ab"], {x for x in "ab"}, sum(x for x in (1, 2))


class A:
    async def long(self):
        def inner():  # two
            pass
'''


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_house_counts_comments_comprehensions_and_functions(tmp_path: Path) -> None:
    body = "            pass\n" * 50
    source = house.read_source(write(tmp_path / "a.py", SOURCE + body + "x = 1" + " " * 96 + "\n"))
    assert source.comments == 2
    assert source.comprehensions == 3
    assert source.longest == (53, "long")
    assert source.long_functions == 2  # and inner, of 52
    assert source.wide_lines == 1


def test_house_counts_fifty_lines_and_a_hundred_characters_as_short(tmp_path: Path) -> None:
    text = "def f():\n" + "    pass\n" * 49 + "#" * 100 + "\n"
    source = house.read_source(write(tmp_path / "a.py", text))
    assert source.longest == (50, "f")
    assert source.long_functions == source.wide_lines == 0


def test_house_has_a_row_a_folder_and_one_for_all(tmp_path: Path) -> None:
    write(tmp_path / "p" / "a.py", "x = 1\n" * 6)
    write(tmp_path / "p" / "b.py", "x = 1\n")
    write(tmp_path / "p" / "q" / "c.py", "# why\n" * 3)
    write(tmp_path / "p" / "empty" / "notes.txt", "no Python")

    rows = house.survey([tmp_path / "p", tmp_path / "p" / "q"])  # q is counted once
    assert [row[0].rpartition("/")[2] for row in rows] == ["p", "q", "all"]
    assert [row[1:5] for row in rows] == [
        ["2", "7", "70.0%", "6 a.py"],
        ["1", "3", "30.0%", "3 c.py"],
        ["3", "10", "100.0%", "6 a.py"],
    ]
    assert [row[6] for row in rows] == ["0", "1000", "300"]


def test_house_prints_aligned_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.py", "x = 1\n")
    write(tmp_path / "__init__.py", "")
    assert house.main([str(tmp_path)]) == 0
    head, first, last = capsys.readouterr().out.splitlines()
    for name in ("files", "lines", "share", "comments"):
        end = head.index(name) + len(name)
        assert first[end - 1] != " " and last[end - 1] != " " and first[end : end + 2].strip() == ""


def test_house_refuses_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path / "missing", tmp_path):
        with pytest.raises(SystemExit):
            house.main([str(folder)])
    errors = capsys.readouterr().err
    assert "missing is no folder" in errors
    assert "there is no Python file" in errors
