"""What lies in a folder, to see that a command left it alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def snapshot(folder: Path, folder_times: bool = True) -> dict[str, tuple]:
    """Path → mode, inode, time, content and target of a link; no link is followed. A folder's time
    changes where something new is put into it: `folder_times=False` leaves it out.
    """
    entries = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        link = os.readlink(path) if path.is_symlink() else ""
        timed = folder_times or not stat.S_ISDIR(status.st_mode)
        time = status.st_mtime_ns if timed else 0
        name = path.relative_to(folder).as_posix()
        entries[name] = (status.st_mode, status.st_ino, time, content, link)
    return entries
