"""The noise that the trainings from nothing ask of the shared processes."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler

from tests.scratch.tiny import tiny_task
from zeroconv.scratch.corpus.batch import Batch
from zeroconv.scratch.embedded import PLAYROOM


def a_batch() -> Batch:
    tokens = torch.zeros(3, 48, dtype=torch.int64)
    return Batch(torch.randn(3, 8, 8, 8), (tokens,), torch.arange(3))


def test_v_of_a_base_gives_back_its_latents() -> None:
    task, batch = tiny_task(), a_batch()
    noisy, t, v, *_ = task.draw(batch, 0, 0)

    assert torch.allclose(task.process.clean(noisy, v, t), batch.latents, atol=1e-5)


def test_the_noise_schedule_of_a_base_is_the_embedded_one() -> None:
    scheduler = DDIMScheduler.from_config(DDIMScheduler.load_config(PLAYROOM / "scheduler"))

    ours = tiny_task().process.alphas_cumprod
    assert torch.allclose(ours, scheduler.alphas_cumprod, atol=1e-6)
