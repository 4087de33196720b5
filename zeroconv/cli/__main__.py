"""`python -m zeroconv.cli`, as launchers of many processes (accelerate, torchrun) start it."""

from __future__ import annotations

from zeroconv.cli import main

if __name__ == "__main__":
    main()
