"""Rows of tokens from prompts of any length, by A1111's rule.

A text encoder reads a window of tokens, 77 for Stable Diffusion, of which the first and the last
mark begin and end. A longer prompt is cut into chunks of 75, each encoded with a begin and an end
of its own. A cut moves back to a comma that is near. BREAK fills the chunk.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from zeroconv.prompts.grammar import Prompt

BACKTRACK = 20  # tokens within which a cut moves back to a comma (A1111's default)
MOST_CHUNKS = 64  # of a prompt: attention reads all of them at once


@dataclass
class Row:
    """One chunk as an encoder reads it: begin, tokens, end, padding."""

    ids: list[int]
    weights: list[float]  # one a token; 1 for begin, end and padding
    # where vectors stand in place of tokens: (position, (n, D))
    vectors: list[tuple[int, Tensor]] = field(default_factory=list)


@dataclass(frozen=True)
class Window:
    """What of a tokenizer the cutting needs."""

    tokenizer: Any
    length: int  # tokens that the encoder reads, begin and end included
    begin: list[int]
    end: list[int]
    comma: int | None
    pad: int

    @classmethod
    def of(cls, tokenizer: Any, encoder: Any) -> Window:
        """The window of an encoder: the smaller of the tokenizer's length and its own."""
        length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        ends = list(tokenizer("")["input_ids"])
        comma = _plain_ids(tokenizer, [","])[0]
        end = ends[-1:]
        pad = tokenizer.pad_token_id
        return cls(
            tokenizer,
            length,
            ends[:-1],
            end,
            comma[0] if len(comma) == 1 else None,
            end[0] if pad is None else pad,
        )

    @property
    def room(self) -> int:
        """Tokens of a prompt in one chunk, 75 for Stable Diffusion."""
        return self.length - len(self.begin) - len(self.end)


class Names:
    """The names of embeddings as a tokenizer writes them, and the vectors they stand for."""

    def __init__(self, tokenizer: Any, vectors: Sequence[tuple[str, Tensor]] = ()) -> None:
        spelled = [
            (spelling, matrix)
            for name, matrix in vectors
            for spelling in (name, f"embedding:{name}")  # the second is ComfyUI's way
        ]
        ids = _plain_ids(tokenizer, [spelling for spelling, _ in spelled])
        self._by_first: dict[int, list[tuple[list[int], Tensor]]] = {}

        for tokens, (_, matrix) in zip(ids, spelled, strict=True):
            if tokens:
                self._by_first.setdefault(tokens[0], []).append((tokens, matrix))
        for known in self._by_first.values():
            known.sort(key=lambda entry: -len(entry[0]))  # the longest name wins

    def at(self, tokens: Sequence[int], position: int) -> tuple[int, Tensor] | None:
        """How many tokens a name that begins here has, and its vectors (n, D)."""
        for known, matrix in self._by_first.get(tokens[position], ()):
            if list(tokens[position : position + len(known)]) == known:
                return len(known), matrix
        return None


def rows_of(prompts: Sequence[Prompt], window: Window, names: Names) -> list[list[Row]]:
    """The rows of each prompt, one at least. A prompt of more than 64 is cut, with a note."""
    texts = [span.text for p in prompts for section in p.sections for span in section]
    ids = iter(_plain_ids(window.tokenizer, texts))
    rows = [_Cutter(window, names).cut(prompt, ids) for prompt in prompts]

    long = [position for position, row in enumerate(rows) if len(row) > MOST_CHUNKS]
    if long:
        begin = " ".join(prompts[long[0]].text[:80].split())
        warnings.warn(
            f"{len(long)} texts have more than the {MOST_CHUNKS * window.room} tokens that are "
            f"read, and what is beyond is not read: {begin!r}… has "
            f"{len(rows[long[0]])} chunks of {window.room}; shorten them.",
            stacklevel=2,
        )
    return [row[:MOST_CHUNKS] for row in rows]


def _plain_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text, without begin and end, and without the tokenizer's own notes."""
    if not texts:
        return []
    encoded = tokenizer(list(texts), truncation=False, add_special_tokens=False, verbose=False)
    return encoded["input_ids"]


class _Cutter:
    """Fills one chunk after the other with the tokens of a prompt."""

    def __init__(self, window: Window, names: Names) -> None:
        self.window, self.names = window, names
        self.done: list[Row] = []
        self.tokens: list[int] = []
        self.weights: list[float] = []
        self.vectors: list[tuple[int, Tensor]] = []
        self.last_comma: int | None = None

    def cut(self, prompt: Prompt, ids: Any) -> list[Row]:
        """The rows of a prompt; `ids` gives the tokens of its spans, one after the other."""
        for number, section in enumerate(prompt.sections):
            if number:
                self._finish()  # BREAK
            for span in section:
                self._add_span(next(ids), span.weight)
        if self.tokens or not self.done:
            self._finish()
        return self.done

    def _add_span(self, tokens: Sequence[int], weight: float) -> None:
        position = 0
        while position < len(tokens):
            self._make_room(tokens[position])
            named = self.names.at(tokens, position)
            if named is None:
                self._add([tokens[position]], weight)
                position += 1
                continue

            length, matrix = named
            if len(self.tokens) + len(matrix) > self.window.room:
                self._finish()
            self.vectors.append((len(self.tokens), matrix))
            self._add([0] * len(matrix), weight)  # any token: the vectors replace it
            position += length

    def _make_room(self, token: int) -> None:
        """Begin a new chunk where this one is full, with what stands behind a comma nearby."""
        if token == self.window.comma:
            self.last_comma = len(self.tokens)
        elif (
            len(self.tokens) == self.window.room
            and self.last_comma is not None
            and len(self.tokens) - self.last_comma <= BACKTRACK
        ):
            self._move_behind(self.last_comma + 1)
        if len(self.tokens) == self.window.room:
            self._finish()

    def _move_behind(self, cut: int) -> None:
        """Finish the chunk before position `cut`, and begin the next with what is behind it."""
        tokens, weights = self.tokens[cut:], self.weights[cut:]
        vectors = [(position - cut, matrix) for position, matrix in self.vectors if position >= cut]
        self.tokens, self.weights = self.tokens[:cut], self.weights[:cut]
        self.vectors = [(position, matrix) for position, matrix in self.vectors if position < cut]
        self._finish()
        self.tokens, self.weights, self.vectors = tokens, weights, vectors

    def _add(self, tokens: list[int], weight: float) -> None:
        self.tokens += tokens
        self.weights += [weight] * len(tokens)

    def _finish(self) -> None:
        window = self.window
        first, rest = len(window.begin), window.room - len(self.tokens)
        self.done.append(
            Row(
                window.begin + self.tokens + window.end + [window.pad] * rest,
                [1.0] * first + self.weights + [1.0] * (len(window.end) + rest),
                [(first + position, matrix) for position, matrix in self.vectors],
            )
        )
        self.tokens, self.weights, self.vectors, self.last_comma = [], [], [], None
