"""Fuzzing: mutated inputs in, and either a result or one sentence out. Run `python -m tools.fuzz
--help`.
"""
