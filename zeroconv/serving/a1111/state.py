"""What A1111's clients may set, and which jobs are theirs. It lives as long as the server runs."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from zeroconv.errors import UserError
from zeroconv.serving.a1111 import names
from zeroconv.serving.a1111.mapping import Known, check_vae, checked_skip
from zeroconv.serving.jobs.job import Job
from zeroconv.serving.studio import Studio

SIDE = 512  # pixels of a base that does not say its own
CHECKPOINT, SKIP, VAE = "sd_model_checkpoint", "CLIP_stop_at_last_layers", "sd_vae"
# what clients look up and cannot change
FIXED: dict[str, Any] = {
    "sd_checkpoint_hash": "",
    "samples_format": "png",
    "enable_pnginfo": True,
    "live_previews_enable": True,
    "randn_source": "CPU",
    "control_net_unit_count": 3,
    "control_net_no_detectmap": False,
}


@dataclass
class State:
    """options: what POST /sdapi/v1/options set. jobs: those of these clients that are open."""

    studio: Studio
    options: dict[str, Any] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    interrupted: bool = False
    skipped: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def known(self) -> Known:
        catalogue = self.studio.catalogue
        sizes = {n: entry.facts.get("resolution") or SIDE for n, entry in catalogue.bases.items()}
        with self.lock:
            options = dict(self.options)
        limits = self.studio.settings.limits
        return Known(
            sizes, list(catalogue.controls), list(catalogue.loras), options,
            limits.side, limits.controls,
        )  # fmt: skip

    @property
    def resolution(self) -> int:
        """Pixels of a side of the base that is chosen now."""
        known = self.known()
        return known.bases[known.options.get(CHECKPOINT) or self.studio.catalogue.default]

    def shown(self) -> dict[str, Any]:
        """What GET /sdapi/v1/options answers."""
        usual = {CHECKPOINT: self.studio.catalogue.default, SKIP: 1, VAE: "Automatic"}
        with self.lock:
            return {**FIXED, **usual, **self.options}

    def set(self, given: Mapping[str, Any]) -> None:
        """Take over what is an option here; the others change nothing, as unknown ones in A1111.

        Raises UserError for values that there are not; then nothing is taken over.
        """
        read: dict[str, Any] = {}
        if (title := given.get(CHECKPOINT)) is not None:
            if not isinstance(title, str):
                raise UserError(f"{CHECKPOINT} is a name; see /sdapi/v1/sd-models.")
            read[CHECKPOINT] = names.listed(title, list(self.studio.catalogue.bases), "checkpoint")
        if (skip := given.get(SKIP)) is not None:
            read[SKIP] = checked_skip(skip)
        check_vae(given.get(VAE))
        with self.lock:
            self.options |= read


def state_of(request: Request) -> State:
    """The one state of an application."""
    app = request.app
    if not hasattr(app.state, "a1111"):
        app.state.a1111 = State(app.state.studio)
    return app.state.a1111
