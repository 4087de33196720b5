"""Addresses of shards: which stores are spoken to, and the files that a range stands for."""

from __future__ import annotations

import math
import re
from urllib.parse import urlsplit

from zeroconv.data.fitting import StorageError

# what fsspec knows beside these runs commands on other machines, reads within archives, or caches
# on its own
PROTOCOLS = ("file", "http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss", "hf")
# of an address: LAION-5B, the largest public set of pictures, has 232,000 in five parts
MOST_SHARDS = 100_000

_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")


def is_address(text: str) -> bool:
    return "://" in text


def check_address(address: str) -> str:
    """The protocol of an address. Raises StorageError where it is none that is spoken to, or is
    malformed.
    """
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in address):
        raise StorageError(
            f"the address {address!r} holds characters that no address may; write them as %XX."
        )

    try:
        parts = urlsplit(address)
        _ = parts.port  # read to have it checked
    except ValueError as error:
        raise StorageError(f"{address} is no address ({error}).") from error

    if parts.scheme not in PROTOCOLS:
        raise StorageError(
            f"{address} cannot be read: {parts.scheme or 'nothing'} is none of the protocols "
            f"{', '.join(PROTOCOLS)}."
        )
    # http://[::1]/ is a host; anywhere else it chains file systems, which may open anything
    if "::" in re.sub(r"(?<=://)([^/@]*@)?\[[0-9a-fA-F:.]*\]", "", address, count=1):
        raise StorageError(
            f"{address} chains several addresses by ::, which is not read; name one."
        )
    if "*" in address:
        raise StorageError(
            f"{address} has a *; name the folder, or count the shards as in "
            f"train-{{00000..00009}}.tar."
        )
    if not parts.netloc and parts.scheme not in ("file", "memory"):
        raise StorageError(
            f"{address} names no host or bucket; write for example https://host/folder."
        )
    return parts.scheme


def expand(address: str) -> list[str]:
    """ "shard-{08..11}.tar" → shard-08.tar … shard-11.tar, as webdataset writes them; several
    ranges in all ways.

    Raises StorageError for braces of another kind, and for more than `MOST_SHARDS` files.
    """
    # between the ranges; their two numbers stand between these
    literal = _RANGE.split(address)[::3]
    ranges = [_numbers(address, *match.groups()) for match in _RANGE.finditer(address)]

    if any("{" in part or "}" in part for part in literal):
        raise StorageError(
            f"{address} has braces that are no range; write {{00000..00099}}, at most nine digits, "
            "each by itself."
        )
    if (count := math.prod(map(len, ranges))) > MOST_SHARDS:
        raise StorageError(
            f"{address} stands for {count:,} shards, and at most {MOST_SHARDS:,} are read; name "
            "fewer in one part."
        )

    addresses = [literal[0]]
    for numbers, rest in zip(ranges, literal[1:], strict=True):
        width = numbers.width
        addresses = [f"{begun}{n:0{width}d}{rest}" for begun in addresses for n in numbers.values]
    return addresses


class _Numbers:
    """Those of one range, and how many digits each has at least."""

    def __init__(self, values: range, width: int) -> None:
        self.values, self.width = values, width

    def __len__(self) -> int:
        return len(self.values)


def _numbers(address: str, first: str, last: str) -> _Numbers:
    padded = any(n.startswith("0") and len(n) > 1 for n in (first, last))

    if padded and len(first) != len(last):
        raise StorageError(
            f"{address}: write both numbers of {{{first}..{last}}} with the same number of digits."
        )
    if int(first) > int(last):
        raise StorageError(
            f"{address}: the range {{{first}..{last}}} counts down; write {{{last}..{first}}}."
        )
    return _Numbers(range(int(first), int(last) + 1), len(first) if padded else 1)
