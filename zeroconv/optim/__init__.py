"""Optimisers and averages of weights; torch only."""
