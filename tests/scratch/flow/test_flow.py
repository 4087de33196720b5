"""The flow base: its packing, its noise levels, and that diffusers loads what is exported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zeroconv.backbones.flow.packing import pack, positions, unpack
from zeroconv.scratch.corpus.batch import Batch
from zeroconv.scratch.export.bases import export_flow
from zeroconv.scratch.flow import FlowModel, FlowTask
from zeroconv.scratch.flow.task import draw_sigmas
from zeroconv.scratch.loop.averages import Averages
from zeroconv.scratch.text.t5 import train_sentences

CAPTIONS = ["a large red ball on grass", "a small blue cube, a pink wall", "a cone"] * 20
TINY = {
    "transformer": {
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 32,
        "pooled_projection_dim": 32,
        "axes_dims_rope": (4, 6, 6),
    },
    "pooled": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "projection_dim": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
    },
    "states": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2},
}


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    return train_sentences(CAPTIONS, tmp_path_factory.mktemp("t5") / "tokenizer_2", 256)


def test_sentences_hold_uncut_words_and_every_printable_letter(sentences) -> None:
    assert sentences.tokenize("a red ball, a cube") == ["▁a", "▁red", "▁ball", ",", "▁a", "▁cube"]
    odd = sentences("Zebra {~} 'x'").input_ids
    assert sentences.unk_token_id not in odd
    assert sentences("").input_ids == [1]
    assert sentences.pad_token_id == 0


def test_packing_is_flux_packing_and_reversible() -> None:
    from diffusers import FluxPipeline

    z = torch.randn(2, 8, 6, 4)
    theirs = FluxPipeline._pack_latents(z, 2, 8, 6, 4)

    assert torch.equal(pack(z), theirs)
    assert torch.equal(unpack(theirs, (6, 4)), z)
    ids = FluxPipeline._prepare_latent_image_ids(1, 3, 2, "cpu", torch.float32)
    assert torch.equal(positions((6, 4), torch.device("cpu")), ids)


def test_sigmas_are_logit_normal_one_from_each_share() -> None:
    sigmas = draw_sigmas(400, torch.Generator().manual_seed(0), "cpu")
    logits = torch.logit(sigmas)

    assert float(logits.mean()) == pytest.approx(0, abs=0.02)
    assert float(logits.std()) == pytest.approx(1, abs=0.03)
    assert not torch.equal(sigmas, sigmas.sort().values)


def test_a_new_flow_model_predicts_nothing_and_learns(sentences) -> None:
    torch.manual_seed(0)
    task = FlowTask(sentences, model=FlowModel(len(sentences), **TINY))
    tokens = tuple(writer(CAPTIONS[:2] + [""]) for writer in task.writers)
    batch = Batch(torch.randn(3, 8, 8, 8), tokens, torch.arange(3))
    drawn = task.draw(batch, 0, 0)
    optimizer = torch.optim.Adam(task.model.parameters(), 1e-2)
    losses = []

    noisy, sigma, velocity = drawn[:3]
    assert torch.allclose(task.process.clean(noisy, velocity, sigma), batch.latents, atol=1e-5)
    assert float(task.predict(*drawn[:2], *drawn[3:]).detach().abs().max()) == 0
    for _ in range(12):
        loss = task.loss(*drawn)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(2.0, abs=0.4)
    assert losses[-1] < 0.8 * losses[0]


def test_exported_flow_base_makes_the_same_pictures_in_diffusers(tmp_path: Path, sentences) -> None:
    from diffusers import FluxPipeline

    torch.manual_seed(0)
    model = FlowModel(len(sentences), **TINY)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    run = tmp_path / "run"
    sentences.save_pretrained(run / "tokenizer_2")
    Averages(model, decays=(0.9,)).save(run, 7)

    assert export_flow(run, tmp_path / "flow", "0.9", **TINY) == 7
    pipeline = FluxPipeline.from_pretrained(tmp_path / "flow", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    z = torch.randn(1, 8, 8, 8)
    asked = {"height": 64, "width": 64, "output_type": "latent", "max_sequence_length": 48}
    made = pipeline(
        "a red ball", latents=pack(z), num_inference_steps=1, guidance_scale=0.0, **asked
    ).images

    model = model.half().float()
    task = FlowTask(sentences, model=model)
    tokens = [writer(["a red ball"]) for writer in task.writers]
    with torch.no_grad():
        velocity = model(z, torch.ones(1), *tokens, torch.zeros(1, dtype=torch.int64))
    assert torch.allclose(made, pack(z - velocity), atol=1e-3)
