"""The text side of `generate`: what is asked for in words → text states, batch by batch."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from zeroconv.backbones import Backbone, TextStates
from zeroconv.backbones.text import TextOptions, chunk_counts, of_length
from zeroconv.errors import UserError
from zeroconv.generation import arguments
from zeroconv.generation.sizes import Sizes
from zeroconv.prompts import Prompt, parse, plain
from zeroconv.prompts.embeddings import embeddings_from

_MOST_SKIPPED = 100  # layers
_MOST_NOTES = 10  # of one call
_EMBEDDING = re.compile(r"\bembedding:([^\s,:()\[\]]+)")  # how ComfyUI writes them


@dataclass
class Words:
    """One side, prompt or negative: a text a picture, or states that were given."""

    texts: list[str]
    prompts: list[Prompt]  # the texts as they are read; empty where states were given
    seconds: list[Prompt] | None  # for SDXL's second text encoder
    states: TextStates | None = None  # given from outside, one row a picture

    def same(self, other: Words, part: slice) -> bool:
        if self.states is not None or other.states is not None:
            return self.states is other.states
        ours, theirs = self.seconds or self.prompts, other.seconds or other.prompts
        return self.prompts[part] == other.prompts[part] and ours[part] == theirs[part]

    def empty(self, number: int) -> bool:
        """Whether there is no text for a picture."""
        texts = [self.prompts[number], (self.seconds or self.prompts)[number]]
        return not any(span.text for p in texts for section in p.sections for span in section)


class TextInputs:
    """Prompts and negatives of one call of `generate`, checked and read.

    Prompts of a batch have equally many chunks, so that a picture does not depend on the others in
    its batch: `batches` cuts where the number changes.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompt: Any,
        negative: Any,
        count: int,
        *,
        prompt_2: Any = None,
        negative_2: Any = None,
        clip_skip: int | None = None,
        plain_prompt: bool = False,
        embeddings: Any = None,
    ) -> None:
        self.backbone = backbone
        if clip_skip is not None:
            arguments.integer("clip_skip", clip_skip, 0, _MOST_SKIPPED, "layers left out")
        if not isinstance(plain_prompt, bool):
            raise arguments.wrong_type("plain_prompt", plain_prompt, "True or False")
        self.options = TextOptions(clip_skip, tuple(embeddings_from(embeddings)))

        self.total, self.count = _count_of("prompt", prompt) * count, count
        read = plain if plain_prompt else parse
        self.prompt = self._words("prompt", prompt, prompt_2, count, read)
        self.negative = self._words("negative", negative, negative_2, count, read)
        _note_reading([self.prompt, self.negative])
        self._note_unused()
        self.chunks = self._chunks()

    def batches(self, batch_size: int) -> Iterator[slice]:
        """Slices of the pictures, `batch_size` long or up to where the number of chunks changes."""
        first = 0
        for number in range(1, self.total + 1):
            full = number - first == batch_size
            if number == self.total or full or self.chunks[number] != self.chunks[first]:
                yield slice(first, number)
                first = number

    def states(
        self, part: slice, cfg: float, sizes: Sizes, halves: float | None = None
    ) -> tuple[TextStates, TextStates | None]:
        """Conditional and unconditional states of some pictures. halves: the scale of guidance by
        the second, where it is not `cfg`.

        The second is None without guidance, and the first itself where both are equal.
        """
        cond = self._embed(self.prompt, part, sizes)
        if self.backbone.reads_guidance:  # a distilled model: the scale is its input
            cond = replace(cond, guidance=torch.full((len(cond),), float(cfg)))
        if (cfg if halves is None else halves) == 1:
            return cond, None

        zeroed = self._zeroed(part)
        if self.prompt.same(self.negative, part) and not any(zeroed):
            return cond, cond
        uncond = _with_zeros(self._embed(self.negative, part, sizes), zeroed)
        uncond = replace(uncond, guidance=cond.guidance)
        length = max(cond.hidden.shape[1], uncond.hidden.shape[1])
        return of_length(self.backbone, cond, length), of_length(self.backbone, uncond, length)

    def _words(self, name: str, value: Any, second: Any, count: int, read: Any) -> Words:
        if isinstance(value, TextStates):
            if second is not None:
                raise UserError(f"{name} is text states, so {name}_2 has nothing to be read for.")
            return Words([""] * self.total, [], None, self._given(name, value, count))

        texts = self._texts(name, value, count)
        known = {text: read(text) for text in dict.fromkeys(texts)}
        words = Words(texts, [known[text] for text in texts], None)
        if second is not None:
            if len(getattr(self.backbone, "text_encoders", ())) < 2:
                raise UserError(
                    f"{name}_2 is for the second text encoder of SDXL, and {self.backbone.name} "
                    f"has none; write it into {name}."
                )
            words.seconds = [read(text) for text in self._texts(f"{name}_2", second, count)]
        return words

    def _texts(self, name: str, value: Any, count: int) -> list[str]:
        given_texts = arguments.texts(name, value)
        what = "negative prompt" if name.startswith("negative") else name
        return arguments.per_picture(
            given_texts if len(given_texts) > 1 else given_texts[0], self.total, count, what
        )

    def _given(self, name: str, states: TextStates, count: int) -> TextStates:
        """States from outside, one row a picture. Raises UserError where they do not fit."""
        if states.hidden.ndim != 3:
            shape = tuple(states.hidden.shape)
            raise UserError(f"the {name}'s states have shape {shape}; give (N, L, D).")
        if getattr(self.backbone, "text_encoders", None):
            self._check_like(name, states, self.backbone.embed_text([""]))
        n = len(states)
        if n not in (1, self.total // count):
            raise UserError(
                f"the {name}'s states are {n} rows for {self.total // count} prompts; give one, or "
                "one a prompt."
            )
        _check_finite(name, states.hidden, states.pooled)
        rows = [0 if n == 1 else number // count for number in range(self.total)]
        return states[rows].to(self.backbone.device, self.backbone.dtype)

    def _check_like(self, name: str, states: TextStates, reference: TextStates) -> None:
        """Raise UserError where states are of other widths than the backbone's own."""
        pairs = {
            "hidden": (states.hidden, reference.hidden),
            "pooled": (states.pooled, reference.pooled),
        }
        for part, (given, known) in pairs.items():
            if known is None:
                continue
            if given is None or given.shape[-1] != known.shape[-1]:
                shape = None if given is None else tuple(given.shape)
                raise UserError(
                    f"the {name}'s states have `{part}` of shape {shape}; {self.backbone.name} "
                    f"reads {known.shape[-1]} numbers a row."
                )

    def _embed(self, words: Words, part: slice, sizes: Sizes) -> TextStates:
        if words.states is not None:
            rows = range(*part.indices(self.total))
            states = words.states[list(rows)]
        else:
            states = self.backbone.embed_text(
                words.prompts[part],
                prompts_2=None if words.seconds is None else words.seconds[part],
                options=self.options,
                chunks=self.chunks[part.start],
            )
        if states.pooled is None or (words.states is not None and states.time_ids is not None):
            return states
        numbers = [*sizes.original, *sizes.crop, *sizes.target]
        ids = torch.tensor(numbers, device=states.hidden.device, dtype=states.hidden.dtype)
        return replace(states, time_ids=ids.repeat(len(states), 1))

    def _zeroed(self, part: slice) -> list[bool]:
        """Which negatives are states of zeros: the empty ones, where the base's config says so."""
        numbers = range(*part.indices(self.total))
        if self.negative.states is not None or not getattr(
            self.backbone, "zero_empty_negative", False
        ):
            return [False] * len(numbers)
        return [self.negative.empty(number) for number in numbers]

    def _note_unused(self) -> None:
        """Say which embeddings are in no prompt, and which names in prompts are no embedding's."""
        texts = [text.lower() for words in self._sides() for text in words]
        given = tuple(one.name.strip().lower() for one in self.options.embeddings)
        unknown = [
            match[1]
            for text in texts
            for match in _EMBEDDING.finditer(text)
            if not text[match.start(1) :].startswith(given)
        ]
        for name in list(dict.fromkeys(unknown))[:_MOST_NOTES]:
            warnings.warn(
                f"prompt: 'embedding:{name}' is read as text, because no embedding has that name; "
                "give its file as an embedding (embeddings=…, --embedding FILE).",
                stacklevel=5,
            )
        for one in self.options.embeddings:
            if not any(one.name.lower() in text for text in texts):
                warnings.warn(
                    f"the embedding {one.name!r} is in no prompt; write its name there.",
                    stacklevel=5,
                )

    def _sides(self) -> list[list[str]]:
        """The texts of prompts and negatives, for each text encoder."""
        sides = (self.prompt, self.negative)
        read = [prompts for words in sides for prompts in (words.prompts, words.seconds)]
        return [[prompt.text for prompt in prompts] for prompts in read if prompts]

    def _chunks(self) -> list[int]:
        """Chunks of each picture, the more of its prompt's and its negative's."""
        counts = [1] * self.total
        for words in (self.prompt, self.negative):
            if words.states is None:
                counts = [max(pair) for pair in zip(counts, self._counted(words), strict=True)]
        return counts

    def _counted(self, words: Words) -> list[int]:
        pairs = list(zip(words.prompts, words.seconds or words.prompts, strict=True))
        different = list(dict.fromkeys(pairs))
        counts = chunk_counts(
            self.backbone,
            [first for first, _ in different],
            [second for _, second in different],
            self.options,
        )
        known = dict(zip(different, counts, strict=True))
        return [known[pair] for pair in pairs]


def _count_of(name: str, value: Any) -> int:
    return len(value) if isinstance(value, TextStates) else len(arguments.texts(name, value))


def _with_zeros(states: TextStates, zeroed: Sequence[bool]) -> TextStates:
    if not any(zeroed):
        return states
    keep = torch.tensor([not zero for zero in zeroed], device=states.hidden.device)
    pooled = states.pooled
    return replace(
        states,
        hidden=states.hidden * keep[:, None, None],
        pooled=None if pooled is None else pooled * keep[:, None],
    )


def _check_finite(name: str, *tensors: Tensor | None) -> None:
    if not all(bool(torch.isfinite(t).all()) for t in tensors if t is not None):
        raise UserError(f"the {name}'s states hold numbers that are not finite.")


def _note_reading(sides: Sequence[Words]) -> None:
    """Say what prompts hold that is read otherwise than it may be meant, each thing once."""
    prompts = [p for words in sides for p in [*words.prompts, *(words.seconds or [])]]
    notes = list(dict.fromkeys(note for p in prompts for note in p.notes))
    for note in notes[:_MOST_NOTES]:
        warnings.warn(
            f"prompt: {note}; plain_prompt (--plain-prompt) reads all as it stands.", stacklevel=5
        )
    loras = list(dict.fromkeys(tag.name for p in prompts for tag in p.loras))
    if loras:
        warnings.warn(
            f"prompt: <lora:{loras[0]}:…> is taken out of the text, but no file is loaded for it; "
            "give it as --lora FILE:WEIGHT or its folder as --lora-dir (from Python: "
            "load_backbone(lora=…)).",
            stacklevel=5,
        )
