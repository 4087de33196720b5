"""Diffusion transformers in the layouts of single files: names, and configs from shapes."""
