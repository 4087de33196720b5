"""How the text encoders of diffusion transformers read prompts: CLIP's states and pooled vector,
and T5's states. Each reads a fixed number of tokens; what is longer is cut, with a note.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from zeroconv.prompts import Prompt

MOST_T5 = 512  # tokens, as the pipelines of FLUX


def as_texts(prompts: Sequence[str | Prompt], family: str) -> list[str]:
    """The texts alone. A note where words have weights, which these encoders were not trained
    for.
    """
    texts = []
    for prompt in prompts:
        if isinstance(prompt, str):
            texts.append(prompt)
            continue
        spans = [span for section in prompt.sections for span in section]
        if any(span.weight != 1 for span in spans):
            warnings.warn(
                f"{family} reads prompts without weights, so those of {prompt.text[:60]!r} change "
                "nothing; say it in words.",
                stacklevel=4,
            )
        texts.append(prompt.text)
    return texts


def tokens_of(tokenizer: Any, texts: Sequence[str], length: int, reader: str) -> Tensor:
    """Token numbers (N, length), filled up. A note for a text that is cut; reader: whose."""
    # transformers' own note on long texts is of no use here
    full = tokenizer(list(texts), truncation=False, verbose=False).input_ids
    for text, numbers in zip(texts, full, strict=True):
        if len(numbers) > length:
            warnings.warn(
                f"{reader} reads {length} tokens, and the prompt that begins with {text[:40]!r} "
                f"has {len(numbers)}: what follows is not read by it.",
                stacklevel=6,
            )
    read = tokenizer(
        list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    return read.input_ids


def written_rows(
    tokenizer: Any, texts: Sequence[str], length: int, reader: str
) -> Iterator[Tensor]:
    """Token numbers (1, L) of each text, `length` at most, not filled up. A note for one that is
    cut.
    """
    for text in texts:
        numbers = list(tokenizer(text, verbose=False).input_ids)
        if len(numbers) > length:
            warnings.warn(
                f"{reader} reads {length} tokens, and a prompt has {len(numbers)} with its "
                "template: its end is not read.",
                stacklevel=6,
            )
        yield torch.tensor([numbers[:length]])


def clip_length(tokenizer: Any) -> int:
    """77; a tokenizer without a limit in its files has a number without meaning."""
    return min(int(tokenizer.model_max_length), 77)


def t5_length(tokenizer: Any, most: int = MOST_T5) -> int:
    """Tokens that T5 is given: `most`, or fewer where its tokenizer says so."""
    return min(int(tokenizer.model_max_length), most)


def clip_pooled(encoder: Any, tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """CLIP's pooled vector (N, P)."""
    tokens = tokens_of(tokenizer, texts, clip_length(tokenizer), "CLIP")
    return encoder(tokens.to(encoder.device)).pooler_output


def clip_states(encoder: Any, tokenizer: Any, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Of a CLIP with a projection: states before the last layer (N, 77, D), projected vector
    (N, P).
    """
    tokens = tokens_of(tokenizer, texts, clip_length(tokenizer), "CLIP")
    out = encoder(tokens.to(encoder.device), output_hidden_states=True)
    return out.hidden_states[-2], out[0]


def t5_states(encoder: Any, tokenizer: Any, texts: Sequence[str], most: int = MOST_T5) -> Tensor:
    """T5's states (N, L, D). Tokens that fill up are read too, as the models were trained."""
    tokens = tokens_of(tokenizer, texts, t5_length(tokenizer, most), "T5")
    return encoder(tokens.to(encoder.device))[0]


def padded(rows: Sequence[Tensor], length: int | None = None) -> tuple[Tensor, Tensor]:
    """Rows (L_i, D) → (N, L, D) with zeros behind, and which tokens are there (N, L), bool."""
    longest = max(length or 0, *(len(row) for row in rows))
    hidden = torch.stack([torch.nn.functional.pad(r, (0, 0, 0, longest - len(r))) for r in rows])
    there = torch.arange(longest, device=hidden.device)[None]
    lengths = torch.tensor([len(row) for row in rows], device=hidden.device)
    return hidden, there < lengths[:, None]
