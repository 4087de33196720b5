"""Which kind of process a diffusers scheduler's config describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether a diffusers scheduler's config is of a flow-matching model."""
    return (
        str(config.get("_class_name", "")).startswith("FlowMatch")
        or config.get("prediction_type") == "flow_prediction"
        or bool(config.get("use_flow_sigmas", False))
    )
