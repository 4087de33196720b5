"""Pictures with captions and hints, and what a training run caches of them.

`spec` and `datasets` know no model, so that worker processes start fast; `cache` and `batches` need
torch and are imported where they are used.
"""

from __future__ import annotations

from zeroconv.data.dataset import Dataset
from zeroconv.data.example import Example
from zeroconv.data.spec import open_dataset

__all__ = ["Dataset", "Example", "open_dataset"]
