"""The history: jobs and pictures in SQLite, their files beside it. It survives a kill.

Rows are committed one by one, in write-ahead mode. A picture's file is whole before its row is
written, so a row never names a missing file. Pictures that are not to be kept are passing: they are
not listed, and of them the newest `MOST_PASSING` stay.
"""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from zeroconv.errors import UserError
from zeroconv.files import atomic_write
from zeroconv.jsonfile import to_json
from zeroconv.serving.errors import ApiError
from zeroconv.serving.jobs.database import prepare
from zeroconv.serving.jobs.entries import entry_of, result_of
from zeroconv.serving.jobs.job import Job
from zeroconv.serving.jobs.keeping import BOUNDS, Bounds, drop_lost_sheets, drop_sheets, prune
from zeroconv.serving.pixels import png, thumbnail

MOST_PASSING = 200
MOST = 200  # entries of one answer
ID = re.compile(r"[0-9a-f]{16}")
LOST = "The server was stopped before this job was done."


class History:
    """Of one data folder. Safe to call from any thread."""

    def __init__(self, folder: Path, bounds: Bounds = BOUNDS) -> None:
        """bounds: of jobs that have ended. Raises UserError where the folder cannot be used."""
        self.folder, self.bounds, self._lock = folder, bounds, threading.RLock()
        try:
            (folder / "pictures").mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                folder / "history.sqlite", check_same_thread=False, isolation_level=None
            )
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error
        try:
            prepare(self._db, folder)
            self.lost = self._mark_lost()
            self._prune_all()
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise self._unusable(error) from error
        except UserError:
            self.close()
            raise

    def _unusable(self, error: Exception) -> UserError:
        return UserError(
            f"the history in {self.folder} cannot be used ({error}); give another --data folder, "
            "or move history.sqlite away to begin a new one."
        )

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _run(self, statement: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(statement, values).fetchall()

    # ---------------------------------------------------------------- jobs

    def _mark_lost(self) -> int:
        """Jobs that were open when the last server ended; returns how many."""
        statement = (
            "UPDATE jobs SET state='lost', error=?, finished=? "
            "WHERE state IN ('queued', 'running') RETURNING id"
        )
        return len(self._run(statement, (LOST, time.time())))

    def record(self, job: Job) -> None:
        """Write a job's state, in place of the older one."""
        statement = (
            "INSERT INTO jobs (id, kind, state, created, started, finished, request, result, "
            "notes, error) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
            "state=excluded.state, started=excluded.started, finished=excluded.finished, "
            "result=excluded.result, notes=excluded.notes, error=excluded.error"
        )
        self._run(
            statement,
            (
                job.id, job.kind, job.state, job.created, job.started, job.finished,
                to_json(job.request), to_json(job.result), to_json(job.notes), job.error,
            ),
        )  # fmt: skip
        if not job.is_open:
            self._prune(job.kind)

    def _prune(self, kind: str) -> None:
        """Drop jobs beyond the bounds, and their sheets."""
        dropped = set(prune(self._run, kind, self.bounds))
        if dropped:
            drop_sheets(self.folder, dropped.__contains__)

    def _prune_all(self) -> None:
        """What has become too old while no server ran, and sheets of no job."""
        for row in self._run("SELECT DISTINCT kind FROM jobs"):
            self._prune(row["kind"])
        measured = self._run("SELECT id FROM jobs WHERE kind = 'evaluate'")
        drop_lost_sheets(self.folder, {row["id"] for row in measured})

    def job(self, id: str) -> dict[str, Any] | None:
        """A job of an earlier run of the server, as `Job.to_json` has it."""
        rows = self._run("SELECT * FROM jobs WHERE id=?", (id,))
        return self._job(rows[0]) if rows else None

    def jobs(self, limit: int) -> list[dict[str, Any]]:
        """The newest jobs of all runs."""
        rows = self._run("SELECT * FROM jobs ORDER BY created DESC LIMIT ?", (limit,))
        return [self._job(row) for row in rows]

    def _job(self, row: sqlite3.Row) -> dict[str, Any]:
        pictures = self._run("SELECT * FROM pictures WHERE job=? ORDER BY number", (row["id"],))
        names = ("id", "kind", "state", "created", "started", "finished", "error")
        return {
            **{name: row[name] for name in names},
            "progress": 1.0 if row["state"] == "done" else 0.0,
            "step": 0,
            "steps": 0,
            "eta_s": None,
            "preview": 0,
            "results": [result_of(picture) for picture in pictures],
            "result": json.loads(row["result"] or "null"),
            "notes": json.loads(row["notes"] or "[]"),
        }

    # ---------------------------------------------------------------- pictures

    def add(
        self,
        job: str,
        image: Image.Image,
        about: Mapping[str, Any],
        settings: Mapping[str, Any],
        hints: Sequence[Image.Image] = (),
        inputs: Mapping[str, Image.Image] | None = None,
        kept: bool = True,
    ) -> dict[str, Any]:
        """Keep a picture: about, hints and inputs in its file, as `save_picture` takes them;
        settings, a body of /generate without pictures, in its row. Returns what a job lists of it.
        """
        from zeroconv.generation.metadata.record import save_picture

        id = secrets.token_hex(8)
        try:
            save_picture(image, self.path(id, ".png"), about, hints, inputs)
            with atomic_write(self.path(id, ".webp"), sync=False) as temporary:
                temporary.write_bytes(thumbnail(image))
            self._insert(id, job, image, settings, kept)
        except BaseException:  # as on a full disk: no file without a row
            self._unlink(id)
            raise
        if not kept:
            self._let_pass()
        return result_of(self._run("SELECT * FROM pictures WHERE id=?", (id,))[0])

    def _insert(
        self, id: str, job: str, image: Image.Image, settings: Mapping[str, Any], kept: bool
    ) -> None:
        prompt = str(settings.get("prompt", ""))
        names = [str(control.get("control", "")) for control in settings.get("controls") or ()]
        words = " ".join([prompt, str(settings.get("negative", "")), *names]).casefold()
        values = (
            id, job, time.time(), prompt, words, to_json(settings), settings.get("seed"),
            image.width, image.height, int(kept),
        )  # fmt: skip
        self._run(
            "INSERT INTO pictures (id, job, created, prompt, words, settings, seed, width, height, "
            "kept) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )

    def _let_pass(self) -> None:
        """Drop the oldest passing pictures."""
        oldest = "SELECT id FROM pictures WHERE kept=0 ORDER BY number DESC LIMIT -1 OFFSET ?"
        for row in self._run(oldest, (MOST_PASSING,)):
            with suppress(ApiError):  # another thread was first
                self.delete(row["id"])

    def _unlink(self, id: str) -> None:
        for suffix in (".png", ".webp"):
            self.path(id, suffix).unlink(missing_ok=True)

    def path(self, id: str, suffix: str) -> Path:
        """Of a picture's file. Raises ApiError 404 for what is no id."""
        if not ID.fullmatch(id):
            raise ApiError(404, "There is no such picture.")
        return self.folder / "pictures" / f"{id}{suffix}"

    def entry(self, id: str) -> dict[str, Any]:
        """Raises ApiError 404."""
        rows = self._run("SELECT * FROM pictures WHERE id=?", (id,))
        if not rows:
            raise ApiError(404, "There is no such picture.")
        return entry_of(rows[0])

    def search(
        self, query: str = "", before: int | None = None, limit: int = 50, favourite: bool = False
    ) -> list[dict[str, Any]]:
        """The newest entries whose prompt, negative prompt or controls hold every word of the
        query. before: a cursor, the `number` of the last entry of the answer before.
        """
        wheres, values = ["kept = 1"], []
        for word in query.casefold().split()[:20]:
            escaped = word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
            wheres.append("words LIKE ? ESCAPE '\\'")
            values.append(f"%{escaped}%")
        if before is not None:
            wheres.append("number < ?")
            values.append(str(before))
        if favourite:
            wheres.append("favourite = 1")
        where = " AND ".join(wheres)
        statement = f"SELECT * FROM pictures WHERE {where} ORDER BY number DESC LIMIT ?"
        return [entry_of(row) for row in self._run(statement, (*values, min(limit, MOST)))]

    def change(self, id: str, favourite: bool | None, keep: bool) -> dict[str, Any]:
        """favourite: None leaves it. keep: a passing picture is kept from now on, as favourites
        are. Raises ApiError 404.
        """
        self.entry(id)
        if favourite is not None:
            self._run("UPDATE pictures SET favourite=? WHERE id=?", (int(favourite), id))
        if favourite or keep:
            self._run("UPDATE pictures SET kept=1 WHERE id=?", (id,))
        return self.entry(id)

    def delete(self, id: str) -> None:
        """The row first, so that a kill leaves no row without a file. Raises ApiError 404."""
        self.entry(id)
        self._run("DELETE FROM pictures WHERE id=?", (id,))
        self._unlink(id)

    def inputs(self, id: str) -> dict[str, Image.Image]:
        """The pictures that one was made from: "hint 0", "region 0", "image", "mask"."""
        from zeroconv.generation.metadata.record import read_info

        self.entry(id)
        about = read_info(self.path(id, ".png"))
        hints = {f"hint {i}": hint for i, hint in enumerate(about["hints"])}
        renamed = {name.replace("mask ", "region "): one for name, one in about["inputs"].items()}
        return {**hints, **renamed}

    def input_png(self, id: str, name: str) -> bytes:
        """Raises ApiError 404 where the picture was not made from such a thing."""
        picture = self.inputs(id).get(name)
        if picture is None:
            raise ApiError(404, f"This picture has no {name}.")
        return png(picture)
