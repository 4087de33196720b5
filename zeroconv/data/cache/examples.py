"""Cached examples as one long table, whatever shards they lie in."""

from __future__ import annotations

import warnings
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from zeroconv.backbones import TextStates
from zeroconv.data.storage.shards import Shard, content_key


@dataclass
class Table:
    """Arrays laid end to end without copying them; `table[[3, 700, 5]]` reads just those, which
    have one shape.
    """

    parts: list[Any]  # arrays, in memory or in a file

    def __post_init__(self) -> None:
        self.parts = [part for part in self.parts if len(part)]
        self.starts = np.cumsum([0, *map(len, self.parts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def shapes(self) -> dict[tuple[int, ...], ndarray]:
        """Height and width of the rows → the indices of those that have them."""
        indices_of: dict[tuple[int, ...], list[ndarray]] = {}
        for part, start in zip(self.parts, self.starts, strict=False):
            indices_of.setdefault(tuple(part.shape[-2:]), []).append(
                np.arange(start, start + len(part))
            )
        return {shape: np.concatenate(indices) for shape, indices in indices_of.items()}

    def __getitem__(self, indices: Sequence[int] | ndarray) -> ndarray:
        shards = np.searchsorted(self.starts, indices, side="right") - 1
        rows = [self.parts[s][i - self.starts[s]] for s, i in zip(shards, indices, strict=True)]
        return np.stack(alike(rows))


def alike(hints: list[ndarray]) -> list[ndarray]:
    """Hints (H, W), (H, W, 3) or (H, W, 4) with as many channels as the one that has most: grey
    beside colours, and whole ones beside those that have a hole.
    """
    most = max((hint.shape[2] if hint.ndim == 3 else 1 for hint in hints), default=1)
    if (
        all(hint.ndim == 2 or hint.shape[2] == most for hint in hints)
        and len({hint.ndim for hint in hints}) < 2
    ):
        return hints
    equalised = []
    for hint in hints:
        colours = hint if hint.ndim == 3 else np.repeat(hint[..., None], 3, -1)
        solid = np.full((*colours.shape[:2], 1), 255, np.uint8)
        equalised.append(
            colours if colours.shape[2] == most else np.concatenate([colours, solid], -1)
        )
    return equalised


@dataclass
class Captions(Sequence):
    """Many short texts as one, with the places where they end: a fifth of the memory of as many
    strings.
    """

    joined: bytes
    ends: ndarray  # (N,) int64

    @classmethod
    def of(cls, texts: Sequence[str]) -> Captions:
        coded = [text.encode() for text in texts]
        return cls(b"".join(coded), np.cumsum([len(text) for text in coded], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i):  # type: ignore[override]
        return self.joined[int(self.ends[i - 1]) if i else 0 : int(self.ends[i])].decode()


@dataclass
class Lists(Sequence):
    """Short lists of numbers laid end to end: `lists[i]` is an array."""

    joined: ndarray
    ends: ndarray  # (N,) int64

    @classmethod
    def of(cls, lists: Iterable[Sequence[int]], total: int) -> Lists:
        """`total`: how many lists."""
        joined, ends = array("q"), np.zeros(total, np.int64)
        for i, one in enumerate(lists):
            joined.extend(one)
            ends[i] = len(joined)
        return cls(np.array(joined), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i):  # type: ignore[override]
        return self.joined[self.ends[i - 1] if i else 0 : self.ends[i]]


def narrow(states: Tensor) -> ndarray:
    """Numbers as the cache holds them: bfloat16 as its bits, uint16; others as they are."""
    states = states.detach().cpu().contiguous()
    return (states.view(torch.uint16) if states.dtype == torch.bfloat16 else states).numpy()


def wide(states: ndarray) -> Tensor:
    """The inverse of `narrow`, in float32."""
    kept = torch.from_numpy(states)
    return (kept.view(torch.bfloat16) if kept.dtype == torch.uint16 else kept).float()


@dataclass
class TextTable:
    """Text states, one row a caption; row 0 is the empty prompt.

    A shard holds `hidden` (M, L, D), one row a chunk of a caption, in the numbers that the text
    encoder gave them in, see `narrow`. Where some captions have
    several, its `chunks` (N,) say how many; without it each has one.
    """

    shards: list[Shard]
    captions: Sequence[str]  # one a row
    weighted: bool = False  # captions were read with weights, as prompts are

    def __post_init__(self) -> None:
        counts = [shard.arrays.get("chunks") for shard in self.shards]
        self.ends = [None if count is None else np.cumsum(count[:]) for count in counts]
        rows = [
            len(shard.arrays["hidden"]) if ends is None else len(ends)
            for shard, ends in zip(self.shards, self.ends, strict=True)
        ]
        self.starts = np.cumsum([0, *rows])

    @property
    def several_lengths(self) -> bool:
        """Whether batches may differ in their number of tokens; the empty prompt has one chunk."""
        return any(ends is not None for ends in self.ends)

    def states(self, indices: Sequence[int] | ndarray) -> TextStates:
        """States of some rows, the shorter ones filled up with the empty prompt's chunk."""
        places = np.searchsorted(self.starts, indices, side="right") - 1
        rows = [(int(s), int(i - self.starts[s])) for s, i in zip(places, indices, strict=True)]
        hidden = [self._hidden(*row) for row in rows]  # (k · L, D) each
        longest = max(map(len, hidden))
        if "tokens" in self.shards[0].arrays:
            return self._masked(rows, hidden)
        if any(len(hidden_of_caption) < longest for hidden_of_caption in hidden):
            empty = self._hidden(0, 0)
            hidden = [
                np.concatenate(
                    [
                        hidden_of_caption,
                        *[empty] * ((longest - len(hidden_of_caption)) // len(empty)),
                    ]
                )
                for hidden_of_caption in hidden
            ]
        pooled, sizes = self._gather("pooled", rows), self._gather("time_ids", rows)
        return TextStates(wide(np.stack(hidden)), pooled, sizes)

    def _masked(self, rows: Sequence[tuple[int, int]], hidden: list[ndarray]) -> TextStates:
        """States of captions that have as many as tokens; zeros behind shorter ones."""
        tokens = [int(self.shards[s].arrays["tokens"][row]) for s, row in rows]
        parts = [wide(np.array(h[:n])) for h, n in zip(hidden, tokens, strict=True)]
        filled = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
        there = torch.arange(max(tokens))[None] < torch.tensor(tokens)[:, None]
        return TextStates(filled, self._gather("pooled", rows), mask=there)

    def _hidden(self, shard: int, row: int) -> ndarray:
        hidden, ends = self.shards[shard].arrays["hidden"], self.ends[shard]
        if ends is None:
            return hidden[row]
        chunks = hidden[int(ends[row - 1]) if row else 0 : int(ends[row])]
        return chunks.reshape(-1, chunks.shape[-1])

    def _gather(self, name: str, rows: Sequence[tuple[int, int]]) -> Tensor | None:
        if name not in self.shards[0].arrays:
            return None
        return torch.from_numpy(np.stack([self.shards[s].arrays[name][row] for s, row in rows]))


@dataclass
class HintLatents:
    """Hints as the latents that a control reads, (N, C, h, w) float32."""

    plain: Table
    mirrored: Table | None
    blanks: dict[tuple[int, ...], ndarray]  # of each shape (h, w) a black hint's, (C, h, w)

    @classmethod
    def of_shards(cls, shards: list[Shard]) -> HintLatents:
        turned = [shard.arrays["mirrored"] for shard in shards if "mirrored" in shard.arrays]
        plain = [shard.arrays["latents"] for shard in shards]
        blanks = {tuple(s.arrays["latents"].shape[-2:]): s.arrays["blank"][0] for s in shards}
        return cls(Table(plain), Table(turned) if turned else None, blanks)

    def of(self, indices: Sequence[int] | ndarray, turn: ndarray, blank: ndarray) -> ndarray:
        """Of some examples; those of `turn` (M,) mirrored, those of `blank` (M,) of black hints."""
        latents = self.plain[indices]
        if turn.any() and self.mirrored is not None:
            latents[turn] = self.mirrored[np.asarray(indices)[turn]]
        if blank.any():
            latents[blank] = self.blanks[latents.shape[-2:]]
        return latents


@dataclass
class Examples:
    """What a run trains on. Arrays are read from disk when asked for; nothing large stays in
    memory.
    """

    moments: Table  # (N, 2C, h, w) float32; h and w differ from bucket to bucket
    mirrored: Table | None  # the same of mirrored pictures
    hints: Table  # (N, H, W) or (N, H, W, 3) uint8
    captions: Sequence[Sequence[int]]  # rows of `text`, one a caption of that picture
    mirrorable: ndarray  # (N,) bool
    text: TextTable
    broken: dict[str, str] = field(default_factory=dict)  # name → why it was set aside
    repeats: ndarray | None = None  # (N,) how often a pass takes each; None: once
    # (N,) what each hint is of; None: all are of the recipe's
    conditions: Sequence[str | None] | None = None
    # names pictures, captions and their order; "" where they did not come from a cache
    mark: str = ""
    # (N, 4) as `Example.original`, −1 where it is not known; None: of no example
    originals: ndarray | None = None
    masks: Table | None = None  # (N, H, W) uint8: where the loss counts
    unmasked: int = 0  # how many of them have no mask of their own
    hint_latents: HintLatents | None = None  # of controls that read hints as latents

    def __len__(self) -> int:
        return len(self.captions)

    @cached_property
    def buckets(self) -> list[ndarray]:
        """The indices of the examples of each shape; without buckets there is one."""
        return list(self.moments.shapes().values())

    @cached_property
    def places(self) -> list[ndarray | None]:
        """Of each bucket where its examples' places in a pass end: an example owns as many as it
        has repeats. None where all have one.
        """
        repeats = self.repeats
        return [None if repeats is None else np.cumsum(repeats[bucket]) for bucket in self.buckets]

    @classmethod
    def of(
        cls,
        hints: list[Shard],
        moments: list[Shard],
        texts: list[list[str]],
        table: TextTable,
        broken: dict[str, str],
        repeats: Sequence[int] = (),
        conditions: Sequence[str | None] | None = None,
        read: list[Shard] | None = None,
    ) -> Examples:
        """`read`: the hints' latents, see `HintLatents`."""
        rows = {caption: row for row, caption in enumerate(table.captions)}
        return cls(
            moments=Table([shard.arrays["moments"] for shard in moments]),
            mirrored=Table([s.arrays["mirrored"] for s in moments])
            if "mirrored" in moments[0].arrays
            else None,
            hints=Table([shard.arrays["hint"] for shard in hints if "hint" in shard.arrays]),
            captions=Lists.of(
                ([rows[caption] for caption in variants] for variants in texts), len(texts)
            ),
            mirrorable=np.array(
                [value for shard in hints for value in shard.note["mirrorable"]], bool
            ),
            text=table,
            broken=broken,
            repeats=np.array(repeats) if any(times != 1 for times in repeats) else None,
            conditions=conditions,
            mark=content_key(
                [key for shard in hints for key in shard.note["keys"]], texts, list(repeats)
            ),
            originals=_originals(hints, table),
            masks=Table([shard.arrays["mask"] for shard in hints if "mask" in shard.arrays])
            if any("mask" in shard.arrays for shard in hints)
            else None,
            unmasked=sum(sum(shard.note.get("unmasked") or []) for shard in hints),
            hint_latents=HintLatents.of_shards(read) if read else None,
        )

    def originals_of(self, indices: Sequence[int] | ndarray) -> ndarray | None:
        """(M, 4), or None where the base does not read them."""
        return None if self.originals is None else self.originals[indices]

    def kinds_of(
        self, indices: Sequence[int] | ndarray, kinds: Mapping[str | None, int] | None
    ) -> Tensor | None:
        """(M,) int64: the numbers of `kinds` for their hints' conditions; None without kinds."""
        if kinds is None:
            return None
        known = self.conditions
        return torch.tensor([kinds[None if known is None else known[int(i)]] for i in indices])

    def masks_of(self, indices: Sequence[int] | ndarray) -> Tensor | None:
        """(M, 1, H, W) uint8, or None where there are no masks."""
        return None if self.masks is None else torch.from_numpy(self.masks[indices])[:, None]

    def prompts(self, indices: Sequence[int] | ndarray) -> list[str]:
        """The first caption of each."""
        return [self.text.captions[int(self.captions[i][0])] for i in indices]


def _originals(hints: list[Shard], table: TextTable) -> ndarray | None:
    """Sizes and crops of the pictures, where the base reads them (SDXL)."""
    if not table.shards or "time_ids" not in table.shards[0].arrays:
        return None
    rows: list[Any] = []
    for shard in hints:
        rows += shard.note.get("originals") or [None] * len(shard.note["keys"])
    if any("originals" not in shard.note for shard in hints):
        warnings.warn(
            "the cache of this data set was made before sizes and crops of pictures were kept, so "
            "SDXL reads that they were not cropped; for the real ones name another data.cache.",
            stacklevel=2,
        )
    return np.array([(-1,) * 4 if row is None else row for row in rows], np.int64).reshape(-1, 4)
