"""Files: a crash leaves the old one or the new one, and nothing of anybody else's is touched.

`atomic_write` and `atomic_folder` write. `check_output` and `check_not_input` try an output before
any work. `filling` holds a folder that grows file by file. `lock_folder` keeps a second process
out. `sweep` removes what killed processes left half written.
"""

from zeroconv.files.checks import check_not_input, check_output
from zeroconv.files.errors import WriteError, cannot_write, is_disk_full, shown
from zeroconv.files.folders import atomic_folder, check_folder
from zeroconv.files.growing import begin_folder, check_begun, filling, replace_marked
from zeroconv.files.locks import LOCK, lock_folder
from zeroconv.files.manifest import DESKTOP, MANIFEST
from zeroconv.files.modes import umask
from zeroconv.files.signs import is_ours
from zeroconv.files.targets import is_stdout, is_stream
from zeroconv.files.temporary import is_stale, is_temporary, sweep
from zeroconv.files.writing import atomic_write

__all__ = [
    "DESKTOP",
    "LOCK",
    "MANIFEST",
    "WriteError",
    "atomic_folder",
    "atomic_write",
    "begin_folder",
    "cannot_write",
    "check_begun",
    "check_folder",
    "check_not_input",
    "check_output",
    "filling",
    "is_disk_full",
    "is_ours",
    "is_stale",
    "is_stdout",
    "is_stream",
    "is_temporary",
    "lock_folder",
    "replace_marked",
    "shown",
    "sweep",
    "umask",
]
