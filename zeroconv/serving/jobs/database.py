"""The tables of the history, and how a database of an older version is brought up to date."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from zeroconv.errors import UserError

_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, state TEXT NOT NULL, created REAL NOT NULL,
    started REAL, finished REAL, request TEXT NOT NULL, result TEXT, notes TEXT, error TEXT
);
CREATE INDEX IF NOT EXISTS jobs_state ON jobs (state);
CREATE TABLE IF NOT EXISTS pictures (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, job TEXT NOT NULL,
    created REAL NOT NULL, prompt TEXT NOT NULL, words TEXT NOT NULL, settings TEXT NOT NULL,
    seed INTEGER, width INTEGER NOT NULL, height INTEGER NOT NULL,
    favourite INTEGER NOT NULL DEFAULT 0, kept INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX IF NOT EXISTS jobs_created ON jobs (created);
CREATE INDEX IF NOT EXISTS jobs_kind ON jobs (kind, created);
CREATE INDEX IF NOT EXISTS pictures_job ON pictures (job);
CREATE INDEX IF NOT EXISTS pictures_kept ON pictures (kept, number);
"""
# what brings a database of each version to the next one
_CHANGES = {1: "ALTER TABLE pictures ADD COLUMN kept INTEGER NOT NULL DEFAULT 1"}
VERSION = 2


def prepare(db: sqlite3.Connection, folder: Path) -> None:
    """Make what is not there yet. Raises UserError for what a newer zeroconv wrote, which is left
    as it is, and sqlite3.Error for what is damaged.
    """
    db.row_factory = sqlite3.Row
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise UserError(f"{folder} was written by a newer zeroconv; give another --data folder.")
    (state,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if state != "ok":
        raise sqlite3.DatabaseError("its database is damaged")
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    for older in range(version or VERSION, VERSION):
        db.execute(_CHANGES[older])
    db.executescript(_TABLES)
    db.execute(f"PRAGMA user_version={VERSION}")
