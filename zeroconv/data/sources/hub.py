"""Data sets of the Hugging Face hub, downloaded once and read where they lie; no script of theirs
is run.
"""

from __future__ import annotations

from pathlib import Path

from zeroconv.data.example import Source
from zeroconv.data.sources.columns import Columns
from zeroconv.data.sources.imagefolder import open_folder
from zeroconv.errors import UserError

# the hub's own conversion of every data set that it can read, whatever its layout:
# CONFIG/SPLIT/*.parquet
CONVERTED = "refs/convert/parquet"


def open_hub(
    name: str,
    split: str | None = None,
    limit: int | None = None,
    condition: str | None = None,
    columns: Columns | None = None,
    config: str | None = None,
    revision: str | None = None,
) -> Source:
    """The data set `owner/name` in a layout that `open_folder` knows, or as the hub converted it.

    Raises UserError where it cannot be fetched, or holds nothing of the kind.
    """
    for wanted in (revision,) if revision else (None, CONVERTED):
        try:
            folder = fetch(name, wanted)
        except UserError:
            if wanted == CONVERTED:
                break  # the hub did not convert it
            raise
        # a snapshot's files are links to blobs of the same data set
        cached = folder.parent.parent if folder.parent.name == "snapshots" else folder
        source = open_folder(folder, split, limit, condition, columns, config, (cached,))
        if source is not None:
            return source
    raise UserError(
        f"the data set {name} of the hub holds no list of pictures, no parquet and no tar shards "
        "that can be read; download it, and make it an imagefolder with a metadata.jsonl."
    )


def fetch(name: str, revision: str | None = None) -> Path:
    """The folder of a data set's files; what is there already needs no network. Raises
    UserError.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=True)
        )
    except Exception:  # not in the cache, under any of the hub's names for that
        pass
    try:
        return Path(snapshot_download(name, repo_type="dataset", revision=revision))
    # offline, no such data set, gated: the hub's classes differ by version
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"the data set {name} cannot be fetched from the hub ({reason}); check the name and "
            "the network, or give a folder."
        ) from error
