"""Tokenizers learned from captions, and captions as token rows."""
