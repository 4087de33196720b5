"""A list cut where its content says: what is put into it moves the cuts beside it and no others.

Cuts at every 256th place would make each shard behind a new picture a new one. Cut by content, as
rsync and backup programs do (A. Muthitacharoen et al., "A Low-bandwidth Network File System", SOSP
2001, section 3.1), the old cuts are found again a chunk or two after the change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator


def chunks(keys: Iterable[str], most: int) -> Iterator[list[str]]:
    """`keys` in order, in lists of at most `most` and, but for the last, at least a quarter of it.

    Behind that least length one key in `most` / 2, told by its hash, ends a list: on average they
    are 0.64 · `most` long, and the largest is cut in a fifth of them.
    """
    least, chunk = max(1, most // 4), list[str]()
    for key in keys:
        chunk.append(key)
        if len(chunk) == most or (len(chunk) >= least and _ends(key, max(2, most // 2))):
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _ends(key: str, one_in: int) -> bool:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % one_in == 0
