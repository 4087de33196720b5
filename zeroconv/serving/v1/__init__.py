"""Our own interface, /api/v1: routers, and the bodies that they take."""

from __future__ import annotations

from zeroconv.serving.v1 import about, annotate, evaluate, generate, history, jobs, train

routers = [
    about.router,
    generate.router,
    annotate.router,
    evaluate.router,
    train.router,
    jobs.router,
    history.router,
]
