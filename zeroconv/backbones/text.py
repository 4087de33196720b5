"""How long prompts are, in the tokens of the text encoders that read them.

An encoder reads a fixed number of tokens and the rest is cut off: what it is to read must be told.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

_MOST = 100_000  # prompts that are looked at: some seconds' work


def count_tokens(backbone: Any, prompts: Sequence[str]) -> list[int]:
    """How many tokens each prompt takes in the encoder that needs most, its first and last
    included, and nothing cut off.
    """
    longest = [0] * len(prompts)
    for tokenizer in backbone.tokenizers:
        # without a word of its own on prompts that are too long
        ids = tokenizer(list(prompts), truncation=False, verbose=False)["input_ids"]
        longest = [max(known, len(found)) for known, found in zip(longest, ids, strict=True)]
    return longest


def token_limit(backbone: Any) -> int:
    """How many tokens every text encoder of a backbone reads."""
    pairs = zip(backbone.tokenizers, backbone.text_encoders, strict=True)
    lengths = [min(t.model_max_length, e.config.max_position_embeddings) for t, e in pairs]
    return min(lengths)


def note_cut_prompts(backbone: Any, prompts: Iterable[str], what: str = "prompts") -> int:
    """Say in one note how many prompts are longer than the encoder, and where the first is cut.

    what: the word for them, "captions" in training. Returns their count. Of more than 100,000
    prompts that may be too long, as many are looked at.
    """
    if not backbone.tokenizers:
        return 0
    limit = token_limit(backbone)

    # a token holds a byte at least, so that short prompts need no tokenizer; small letters of a
    # few languages take more bytes than large ones, by half at most
    distinct = dict.fromkeys(prompts)
    doubtful = [text for text in distinct if 1.5 * len(_bytes(text)) > limit - 2]
    looked = doubtful[:_MOST]
    counts: list[int] = []
    for i in range(0, len(looked), 1000):
        counts += count_tokens(backbone, looked[i : i + 1000])
    long = [(text, n) for text, n in zip(looked, counts, strict=True) if n > limit]
    if not long:
        return 0

    text, tokens = long[0]
    seen = "" if looked == doubtful else f" of the first {_MOST:,}"
    warnings.warn(
        f"{len(long)} {what}{seen} are longer than the {limit} tokens that the text encoder reads, "
        f"and what is beyond is not read: {_begin(text)!r} has {tokens}; shorten them.",
        stacklevel=2,
    )
    return len(long)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _begin(text: str) -> str:
    """Enough of a prompt to find it."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}..."
