"""Layers that compute the same faster or in less memory; torch only."""
