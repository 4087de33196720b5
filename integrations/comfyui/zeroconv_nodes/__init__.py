"""ComfyUI nodes of zeroconv: copy this folder into ComfyUI's `custom_nodes`."""

from __future__ import annotations

from .annotating import Annotate
from .applying import Apply
from .loading import Load

NODE_CLASS_MAPPINGS = {
    "ZeroconvLoadControl": Load,
    "ZeroconvApplyControl": Apply,
    "ZeroconvAnnotate": Annotate,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "ZeroconvLoadControl": "Load Control (zeroconv)",
    "ZeroconvApplyControl": "Apply Control (zeroconv)",
    "ZeroconvAnnotate": "Draw Hint (zeroconv)",
}
