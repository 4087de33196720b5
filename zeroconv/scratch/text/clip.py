"""A CLIP tokenizer learned from the captions of the playroom."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from zeroconv.files import atomic_folder

BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(captions: Iterable[str], folder: Path, vocabulary: int, max_length: int):
    """Byte-pair encoding in CLIP's own form (lower case, `</w>` ends a word), saved as a
    CLIPTokenizer folder.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    # CLIPTokenizer normalises and splits; the same steps must stand before the merges that
    # are learned here
    steps = CLIPTokenizer().backend_tokenizer
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=EOS))
    learner.normalizer, learner.pre_tokenizer = steps.normalizer, steps.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 2,
        end_of_word_suffix="</w>",
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learner.train_from_iterator(captions, trainer)
    vocab = learner.get_vocab()
    # the trainer leaves lone bytes without their word-ending form; every string must be writable
    for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocab.setdefault(f"{symbol}</w>", len(vocab))
    vocab[BOS], vocab[EOS] = len(vocab), len(vocab) + 1
    tokenizer = CLIPTokenizer(vocab=vocab, merges=_merges(learner), model_max_length=max_length)
    with atomic_folder(folder) as temporary:
        tokenizer.save_pretrained(temporary)
    return CLIPTokenizer.from_pretrained(folder, trust_remote_code=False)


def _merges(learner) -> list[tuple[str, str]]:
    import json

    return [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
