"""Measurements behind the figures of the README; each command writes one file of benchmarks/results."""
