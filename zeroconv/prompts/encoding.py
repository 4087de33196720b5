"""Text states of prompts of any length, from the text encoders of a base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zeroconv.errors import UserError
from zeroconv.prompts.chunks import Names, Row, Window, rows_of
from zeroconv.prompts.embeddings import Embedding, for_encoders
from zeroconv.prompts.grammar import Prompt

_AT_ONCE = 64  # rows that an encoder reads in one pass


@dataclass
class Encoded:
    """What one text encoder gives for N prompts."""

    hidden: list[Tensor]  # of each prompt (k · L, D), k chunks
    pooled: Tensor | None  # (N, P): the summary of each first chunk


class Reader:
    """One text encoder with its tokenizer: how it cuts prompts and what it gives for them.

    clip_skip: layers left out at the end, as diffusers counts them (A1111's "Clip skip" less one).
    xl: SDXL's rules, which take the states before the last layer, without the last norm.
    """

    def __init__(
        self,
        tokenizer: Any,
        encoder: Any,
        vectors: Sequence[tuple[str, Tensor]] = (),
        clip_skip: int | None = None,
        xl: bool = False,
    ) -> None:
        self.encoder, self.clip_skip, self.xl = encoder, clip_skip, xl
        self.window = Window.of(tokenizer, encoder)
        self.names = Names(tokenizer, vectors)
        layers, skipped = encoder.config.num_hidden_layers, (clip_skip or 0) + xl
        if skipped >= layers:
            raise UserError(
                f"clip_skip is {clip_skip}, but this text encoder has {layers} layers; give "
                f"{layers - 1 - xl} at most."
            )
        for name, matrix in vectors:
            if len(matrix) > self.window.room:
                raise UserError(
                    f"the embedding {name!r} has {len(matrix)} vectors, more than the "
                    f"{self.window.room} tokens of a chunk; take one with fewer."
                )

    def rows(self, prompts: Sequence[Prompt]) -> list[list[Row]]:
        """The chunks of each prompt, one at least."""
        return rows_of(prompts, self.window, self.names)

    def encode(self, prompts: Sequence[Prompt], device: torch.device) -> Encoded:
        """The states of each prompt, its chunks one after the other."""
        chunks = self.rows(prompts)
        rows = [row for rows_of_text in chunks for row in rows_of_text]
        parts = [
            self._encode(rows[i : i + _AT_ONCE], device) for i in range(0, len(rows), _AT_ONCE)
        ]
        hidden = torch.cat([part[0] for part in parts])  # (M, L, D)
        ends = torch.tensor([len(rows_of_text) for rows_of_text in chunks]).cumsum(0)
        firsts = ends - torch.tensor([len(rows_of_text) for rows_of_text in chunks])

        summaries = [part[1] for part in parts if part[1] is not None]
        pooled = torch.cat(summaries)[firsts.to(device)] if summaries else None
        of_each = [
            hidden[first:end].flatten(0, 1)
            for first, end in zip(firsts.tolist(), ends.tolist(), strict=True)
        ]
        return Encoded(of_each, pooled)

    def _encode(self, rows: list[Row], device: torch.device) -> tuple[Tensor, Tensor | None]:
        """States (M, L, D) with their weights, and summaries (M, P)."""
        ids = torch.tensor([row.ids for row in rows], device=device)
        deep = self.xl or bool(self.clip_skip)
        with _replaced(self.encoder, rows):
            out = self.encoder(ids, output_hidden_states=deep)
        pooled = getattr(out, "text_embeds", None) if self.xl else None
        return _weighted(self._states(out), rows), pooled

    def _states(self, out: Any) -> Tensor:
        if self.xl:
            return out.hidden_states[-2 - (self.clip_skip or 0)]
        if not self.clip_skip:
            return out.last_hidden_state
        norm = next(
            module
            for name, module in self.encoder.named_modules()
            if name.endswith("final_layer_norm")
        )
        return norm(out.hidden_states[-1 - self.clip_skip])


def readers_of(
    tokenizers: Sequence[Any],
    encoders: Sequence[Any],
    embeddings: Sequence[Embedding] = (),
    clip_skip: int | None = None,
    xl: bool = False,
) -> list[Reader]:
    """A `Reader` for each text encoder of a base. Raises UserError for embeddings of another."""
    widths = [encoder.get_input_embeddings().weight.shape[1] for encoder in encoders]
    vectors = for_encoders(embeddings, widths)
    return [
        Reader(tokenizer, encoder, known, clip_skip, xl)
        for tokenizer, encoder, known in zip(tokenizers, encoders, vectors, strict=True)
    ]


def joined(encoded: Sequence[Tensor], length: int, empty: Tensor | None) -> Tensor:
    """States of N prompts, (k · L, D) each, filled up with the empty chunk (L, D) → (N, length,
    D).
    """
    filled = []
    for states in encoded:
        missing = length - len(states)
        if missing:
            assert empty is not None
            states = torch.cat([states, empty.repeat(missing // len(empty), 1)])
        filled.append(states)
    return torch.stack(filled)


def _weighted(states: Tensor, rows: Sequence[Row]) -> Tensor:
    """Each token's state times its weight; then the chunk's mean is restored (A1111's rule).

    Rows whose weights are all 1 stay as they are, bit for bit.
    """
    changed = [number for number, row in enumerate(rows) if any(w != 1 for w in row.weights)]
    if not changed:
        return states
    before = states[changed].float()  # (M', L, D)
    weights = torch.tensor([rows[number].weights for number in changed], device=states.device)
    after = before * weights[..., None]

    means, new = before.mean((1, 2)), after.mean((1, 2))
    scale = torch.where(new == 0, torch.ones_like(new), means / new)
    states = states.clone()
    states[changed] = (after * scale[:, None, None]).to(states.dtype)
    return states


@contextmanager
def _replaced(encoder: nn.Module, rows: Sequence[Row]) -> Iterator[None]:
    """Within, the vectors of embeddings stand in place of the tokens' own."""
    if not any(row.vectors for row in rows):
        yield
        return

    def put(module: nn.Module, given: Any, out: Tensor) -> Tensor:
        out = out.clone()  # (M, L, D)
        for number, row in enumerate(rows):
            for position, matrix in row.vectors:
                out[number, position : position + len(matrix)] = matrix.to(out)
        return out

    table: Any = encoder.get_input_embeddings()  # type: ignore[operator]
    handle = table.register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()
