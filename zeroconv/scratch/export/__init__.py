"""Trained bases as diffusers pipeline folders."""
