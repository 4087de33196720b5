"""playroom-flow: a tiny transformer of the FLUX family, trained by flow matching."""

from __future__ import annotations

from zeroconv.scratch.flow.model import FlowModel
from zeroconv.scratch.flow.task import FlowTask, sentences_of

__all__ = ["FlowModel", "FlowTask", "sentences_of"]
