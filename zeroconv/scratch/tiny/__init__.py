"""A small decoder for latents of the embedded VAE, trained to decode as that one does."""
