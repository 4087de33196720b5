"""`--device` and `--dtype` of the commands that let networks read pictures."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reading(backend: str | None, device: str, dtype: str) -> Iterator[None]:
    """Inside, the network that `backend` names reads where the two options say.

    Raises UserError for a device or dtype that is not there. A note says where they change nothing.
    """
    asked = device != "auto" or dtype not in ("auto", "float32")
    if backend is None and not asked:  # nothing of torch is needed
        yield
        return

    from zeroconv.annotators.placing import reading_on
    from zeroconv.backbones.devices import dtype_name, pick_device, pick_dtype

    picked = pick_device(device)
    numbers = dtype_name(pick_dtype(dtype, picked))
    if asked and backend in (None, "hed", "posenet", "selfie"):
        warnings.warn(
            "--device and --dtype are for networks of transformers; what is drawn here, HED, "
            "PoseNet and MediaPipe's are computed on the processor in float32.",
            stacklevel=3,
        )
    with reading_on(picked, numbers):
        yield
