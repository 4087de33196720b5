"""From which step on each shard is used.

Shards may be added while a training runs. The step is written into the run's folder before the
shards are used, so a resumed training sees the same pictures at the same steps.
"""

from __future__ import annotations

import json
from pathlib import Path

from zeroconv.files import atomic_write
from zeroconv.scratch.corpus.shards import shard_names


class Journal:
    """From which step on each shard is used, in a file; a line once written holds for every resumed
    run.
    """

    def __init__(self, path: Path, shards: Path) -> None:
        self.path, self.shards = path, shards
        self.lines: list[tuple[int, list[str]]] = []
        if path.exists():
            self.lines = [
                (int(step), list(names))
                for step, names in json.loads(path.read_text(encoding="utf-8"))
            ]

    def names(self, step: int) -> list[str]:
        """Every shard in use at a step, in the order in which they came."""
        return [name for since, names in self.lines if since <= step for name in names]

    def look(self, step: int) -> None:
        """Take up the shards that were finished meanwhile; asked again at the same step, it stays
        as it was.
        """
        if any(since >= step for since, _ in self.lines):
            return
        known = set(self.names(step))
        fresh = [name for name in shard_names(self.shards) if name not in known]

        self.lines.append((step, fresh))
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps(self.lines, indent=0), encoding="utf-8")
