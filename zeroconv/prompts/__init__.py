"""Prompts as people write them: weights, long texts in chunks, embeddings. Knows no model.

`grammar` reads a prompt, `chunks` makes rows of tokens of it, `embeddings` reads files of textual
inversion, `encoding` runs the text encoders on the rows.
"""

from zeroconv.prompts.grammar import LoraTag, Prompt, Span, loras_of, parse, plain, write

__all__ = ["LoraTag", "Prompt", "Span", "loras_of", "parse", "plain", "write"]
