"""The same hints from a Ray cluster of one machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.annotating.test_run import run, tree
from zeroconv.data import open_dataset
from zeroconv.data.annotating.run import Job, annotate_dataset, with_ray


@pytest.mark.cluster
def test_a_cluster_leaves_the_same_files(tmp_path: Path) -> None:
    import ray

    run(tmp_path / "local")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        job = Job(
            open_dataset("playroom:test:24", size=64), ("canny", "depth"), tmp_path / "cluster"
        )
        assert annotate_dataset(job, run=with_ray).drawn == 24
        assert annotate_dataset(job, run=with_ray).kept == 24
    finally:
        ray.shutdown()
    assert tree(tmp_path / "cluster") == tree(tmp_path / "local")
