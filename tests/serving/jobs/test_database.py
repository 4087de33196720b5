"""The history's database: other versions, damaged, full, read-only; and what passes."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.full_disk import full_disk
from zeroconv.errors import UserError
from zeroconv.serving.errors import sentence_of
from zeroconv.serving.jobs import history as of_history
from zeroconv.serving.jobs.history import LOST, History
from zeroconv.serving.jobs.job import Job

IMAGE = Image.new("RGB", (8, 8), "red")


def add(history: History, prompt: str = "a cat", **more) -> str:
    return history.add("0" * 16, IMAGE, {"prompt": prompt}, {"prompt": prompt}, **more)["id"]


def files_of(folder: Path) -> set[str]:
    return {path.name for path in (folder / "pictures").iterdir()}


def test_database_of_a_newer_version_is_left_as_it_is(tmp_path) -> None:
    with sqlite3.connect(tmp_path / "history.sqlite") as db:
        db.execute("CREATE TABLE jobs (id TEXT, what TEXT)")
        db.execute("PRAGMA user_version=99")
    db.close()
    before = (tmp_path / "history.sqlite").read_bytes()
    with pytest.raises(UserError, match="newer zeroconv"):
        History(tmp_path)
    assert (tmp_path / "history.sqlite").read_bytes() == before


def test_database_of_the_first_version_is_brought_up_to_date(tmp_path) -> None:
    history = History(tmp_path)
    id = add(history)
    for index in ("pictures_kept", "pictures_job", "jobs_created"):
        history._db.execute(f"DROP INDEX {index}")
    history._db.execute("ALTER TABLE pictures DROP COLUMN kept")
    history._db.execute("PRAGMA user_version=1")
    history.close()
    for _ in range(2):  # and opened again
        history = History(tmp_path)
        assert [entry["id"] for entry in history.search()] == [id]
        history.close()


@pytest.mark.parametrize("damage", ["no database", "a page", "cut"])
def test_database_that_is_damaged_is_a_sentence(tmp_path, damage) -> None:
    history = History(tmp_path)
    for i in range(30):
        history.record(Job("generate", None, {"prompt": "a" * 500 + str(i)}))
    history.close()
    path = tmp_path / "history.sqlite"
    content = bytearray(path.read_bytes())
    if damage == "no database":
        content[:] = b"not a database at all" * 1000
    elif damage == "a page":
        content[4096:] = b"\xa5" * (len(content) - 4096)
    else:
        content = content[: len(content) // 2]
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be used.*move history"):
        History(tmp_path)


def test_database_that_is_read_only_is_a_sentence(tmp_path, monkeypatch) -> None:
    History(tmp_path).close()
    real = sqlite3.connect

    def read_only(path, **more):
        return real(f"file:{path}?mode=ro", uri=True, **more)

    monkeypatch.setattr(sqlite3, "connect", read_only)
    with pytest.raises(UserError, match="readonly database"):
        History(tmp_path)


def test_database_marks_what_was_open_as_lost(tmp_path) -> None:
    history = History(tmp_path)
    job = Job("generate", None)
    history.record(job)
    history.close()
    history = History(tmp_path)
    assert history.lost == 1 and history.job(job.id)["error"] == LOST
    history.close()


def test_full_disk_leaves_no_file_without_a_row(tmp_path) -> None:
    history = History(tmp_path)
    with full_disk(), pytest.raises(OSError) as error:
        add(history)
    assert "disk" in sentence_of(error.value, "x") and "full" in sentence_of(error.value, "x")
    assert files_of(tmp_path) == set() and history.search() == []
    assert add(history)
    history.close()


def test_full_database_is_a_sentence_and_leaves_no_file(tmp_path) -> None:
    history = History(tmp_path)
    (pages,) = history._db.execute("PRAGMA page_count").fetchone()
    history._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(sqlite3.OperationalError) as error:
        add(history, "a" * 50_000)
    assert "full" in sentence_of(error.value, "x")
    assert files_of(tmp_path) == set()
    history.close()


def test_full_disk_is_answered_with_a_sentence(client, monkeypatch) -> None:
    def full(*args, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(client.app.state.studio.history, "search", full)
    answer = client.get("/api/v1/history")
    assert answer.status_code == 503 and "full" in answer.json()["error"]


def test_passing_pictures_are_not_listed_and_the_newest_stay(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(of_history, "MOST_PASSING", 3)
    history = History(tmp_path)
    kept = add(history)
    passing = [add(history, f"number {i}", kept=False) for i in range(5)]
    assert [entry["id"] for entry in history.search()] == [kept]
    assert files_of(tmp_path) == {f"{id}{end}" for id in (kept, *passing[2:]) for end in ENDS}
    assert history.entry(passing[2])["kept"] is False
    # a favourite is kept, and so is what is asked to
    assert history.change(passing[2], True, False)["kept"] is True
    assert history.change(passing[3], None, True)["favourite"] is False
    for i in range(5):
        add(history, f"later {i}", kept=False)
    assert [entry["id"] for entry in history.search()] == [passing[3], passing[2], kept]
    history.close()


ENDS = (".png", ".webp")


def test_lists_of_jobs_look_their_pictures_up_by_an_index(tmp_path) -> None:
    history = History(tmp_path)
    for statement in (
        "SELECT * FROM pictures WHERE job=? ORDER BY number",
        "SELECT * FROM jobs ORDER BY created DESC LIMIT ?",
    ):
        plan = history._db.execute(f"EXPLAIN QUERY PLAN {statement}", ("1",)).fetchall()
        assert any("USING INDEX" in row["detail"] for row in plan), [row["detail"] for row in plan]
    history.close()
