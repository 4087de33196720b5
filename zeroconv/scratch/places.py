"""Where the embedded playroom lies; every base from here shares its VAE and tokenizer."""

from __future__ import annotations

from pathlib import Path

import zeroconv

PLAYROOM = Path(zeroconv.__file__).resolve().parent / "assets" / "playroom"
