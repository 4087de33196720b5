"""Our own interface, /api/v1: routers, and the bodies that they take."""

from __future__ import annotations

from zeroconv.serving.v1 import about, annotate, generate, history, jobs

routers = [
    about.router,
    generate.router,
    annotate.router,
    jobs.router,
    history.router,
]
