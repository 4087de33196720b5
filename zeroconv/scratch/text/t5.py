"""A T5 tokenizer for captions: whole words, pieces for words that are rare, letters for the rest.

A unigram model that learns from such repetitive text alone cuts its commonest words to pieces, and
a caption of four things no longer fits. So words are put into the vocabulary as they are.
"""

from __future__ import annotations

import json
import math
import re
import string
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from zeroconv.files import atomic_folder

SPECIAL = ("<pad>", "</s>", "<unk>")  # T5's first three numbers
LETTERS = [letter for letter in string.printable if not letter.isspace()]
WORDS = 1600  # of a vocabulary of 2048
PENALTY = 12.0  # so that one word is always likelier than two pieces


def train_sentences(
    captions: Iterable[str], folder: Path, vocabulary: int = 2048, length: int = 48
):
    """Learn and save a T5TokenizerFast; returns it as it loads from `folder`.

    Every printable ASCII character is known, so no prompt is lost. Captions are lower case; so
    should prompts be.
    """
    from transformers import T5TokenizerFast

    counts = Counter(word for caption in captions for word in re.findall(r"\w[\w'-]*|\S", caption))
    total = sum(counts.values())
    common = [word for word, _ in counts.most_common(min(WORDS, vocabulary // 2))]

    scores = dict.fromkeys(SPECIAL, 0.0)
    for word in common:
        scores[f"▁{word}"] = math.log(counts[word] / total)
    for piece, score in _pieces(counts, vocabulary - len(scores) - len(LETTERS)):
        scores.setdefault(piece, score - PENALTY)
    for letter in ["▁", *LETTERS]:
        scores.setdefault(letter, -2 * PENALTY)
    for mark in ",.'\"":  # they end words without a space
        scores[mark] = -4.0

    tokenizer = T5TokenizerFast(vocab=list(scores.items()), extra_ids=0, model_max_length=length)
    with atomic_folder(folder) as temporary:
        tokenizer.save_pretrained(temporary)

    return T5TokenizerFast.from_pretrained(folder, trust_remote_code=False)


def _pieces(counts: Counter, vocabulary: int) -> list[tuple[str, float]]:
    """Pieces of words by a unigram model that sees every word equally often."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    learner = Tokenizer(models.Unigram())
    learner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=max(vocabulary, 64), unk_token="<unk>", show_progress=False
    )
    learner.train_from_iterator(sorted(counts), trainer)

    pieces = json.loads(learner.to_str())["model"]["vocab"]
    return [(piece, score) for piece, score in pieces if piece != "<unk>"]
