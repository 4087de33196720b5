"""Diffusion transformers of flow matching: Stable Diffusion 3, FLUX.1, Qwen-Image, Z-Image."""
