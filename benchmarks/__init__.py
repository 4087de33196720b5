"""Measurements behind the project's figures, in three groups; `python -m benchmarks` lists them.

Each command writes one file of benchmarks/results; `python -m benchmarks.figures` shows those in
the pages. `benchmarks.common` is shared by all.
"""
