"""One picture with its captions and hint, and what any source of them has to offer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from numpy import ndarray
from PIL import Image

# captions that a mirror makes wrong; other writing in a picture cannot be known from here
_SIDED = re.compile(
    r"\b(left|right|leftmost|rightmost|clockwise|counterclockwise|east|west|text|writing|sign)\b",
    re.I,
)


def true_in_mirror(captions: Iterable[str]) -> bool:
    """Whether the captions stay true of the mirrored picture."""
    return not any(_SIDED.search(caption) for caption in captions)


@dataclass(frozen=True)
class Example:
    """One picture. `text` holds every caption it has; a trainer draws one of them each time."""

    key: str  # names the example in messages and lists
    image: Image.Image  # RGB
    text: tuple[str, ...]
    hint: Image.Image | None = None
    mirrorable: bool = False  # whether the captions stay true in a mirror
    # of a pose hint: (18, 3) a person, x and y in pixels of `image`
    people: tuple[ndarray, ...] | None = None
    # height and width before cropping and scaling, and what the crop left out above and at the
    # left, in pixels after scaling; None where nothing was done
    original: tuple[int, int, int, int] | None = None
    # "L", 255 where the loss counts fully, 0 where it does not; None: everywhere
    mask: Image.Image | None = None

    @property
    def caption(self) -> str:
        return self.text[0]


class Source(Protocol):
    """Where examples come from. A source is small and can be sent to worker processes."""

    @property
    def condition(self) -> str | None:
        """The condition of this source's hints, where it differs from the data set's."""

    @property
    def generated(self) -> bool:
        """Made by a program, slowly: worth keeping once made."""

    def __len__(self) -> int: ...

    def key(self, i: int) -> str:
        """Names the content of example i: the same key, the same picture and captions."""

    def name(self, i: int) -> str:
        """Names example i to a person: a file name, a seed."""

    def example(self, i: int, size: int | None, condition: str | None) -> Example:
        """Raises UserError if the picture is missing or broken. `hint` is None unless the source
        has it.
        """

    def shape(self, i: int) -> tuple[int, int] | None:
        """Width and height of example i's picture without reading its pixels; None: a square of any
        size is made. Raises UserError if it is missing or broken.
        """
