"""Samplers and schedules by name, the noise that they add, and how `generate` steps."""
