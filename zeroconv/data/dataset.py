"""The examples of one or several sources as one sequence, cropped and scaled alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from zeroconv.data.buckets import Buckets, Frame
from zeroconv.data.example import Example, Source
from zeroconv.data.fitting import BrokenExample, fit, read_patiently


@dataclass(frozen=True)
class Dataset(Sequence):
    """Examples of one or several sources, one after the other.

    With `size`, pictures and hints are cropped to their middle square and scaled to it, or with
    `buckets` to the middle of the nearest shape among them. With `condition`, an example without a
    hint gets one drawn from its picture. A source's examples are taken `repeats` times in a pass of
    training; here they stand once.
    """

    sources: tuple[Source, ...]
    size: int | None = None
    condition: str | None = None
    # (source, index there) of every example
    rows: tuple[tuple[int, int], ...] = field(default=(), repr=False)
    repeats: tuple[int, ...] = ()  # one a source; none: 1 each
    buckets: Buckets | None = None
    masks: str | None = None  # where masks of the loss come from, see `columns.Masks`

    def __post_init__(self) -> None:
        if not self.rows:
            rows = [(s, i) for s, source in enumerate(self.sources) for i in range(len(source))]
            object.__setattr__(self, "rows", tuple(rows))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i):  # type: ignore[override]
        if isinstance(i, slice):
            return replace(self, rows=self.rows[i])
        source, index = self.rows[i]
        condition = self.condition_of(i)
        example = read_patiently(lambda: self.sources[source].example(index, self.size, condition))
        frame = self.size if self.buckets is None else self.buckets.frame(*example.image.size)
        return fit(example, frame, condition)

    def __iter__(self) -> Iterator[Example]:
        return (self[i] for i in range(len(self)))

    def condition_of(self, i: int) -> str | None:
        """The condition of example i's hint."""
        return self.sources[self.rows[i][0]].condition or self.condition

    def frame(self, i: int) -> Frame | None:
        """Width and height that example i will have; None where it keeps its own, or cannot be
        used.
        """
        if self.buckets is None:
            return None if self.size is None else (self.size, self.size)
        source, index = self.rows[i]
        try:
            shape = read_patiently(lambda: self.sources[source].shape(index))
            return self.buckets.frame(*(shape or (self.buckets.size, self.buckets.size)))
        except BrokenExample:
            return None

    def repeat(self, i: int) -> int:
        """How often a pass takes example i."""
        return self.repeats[self.rows[i][0]] if self.repeats else 1

    def key(self, i: int) -> str:
        """Names what example i is made from, before size and condition."""
        source, index = self.rows[i]
        return self.sources[source].key(index)

    def name(self, i: int) -> str:
        source, index = self.rows[i]
        return self.sources[source].name(index)

    def generated(self, i: int) -> bool:
        return self.sources[self.rows[i][0]].generated
