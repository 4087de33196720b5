"""The playroom's autoencoder, trained from nothing."""

from __future__ import annotations

from zeroconv.scratch.vae.model import AutoencoderConfig
from zeroconv.scratch.vae.training import read_autoencoder, train_autoencoder

__all__ = ["AutoencoderConfig", "read_autoencoder", "train_autoencoder"]
