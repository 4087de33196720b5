"""An untrained base of playroom-flow's kind, for what a benchmark asks of any flow base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

SMALL: dict[str, Any] = {
    "transformer": {"num_layers": 3, "num_single_layers": 3, "num_attention_heads": 2},
    "states": {"num_layers": 1},
    "pooled": {"num_hidden_layers": 1},
}
CAPTIONS = ("a red ball on a blue floor", "two green cubes and a hat", "pale golden rod circle")


def write_untrained(folder: Path, seed: int = 0, **configs: Any) -> Path:
    """Write a FluxPipeline folder with new weights. configs: of `FlowModel`."""
    from zeroconv.scratch.embedded import embedded_tokenizer, embedded_vae
    from zeroconv.scratch.export.bases import write_flow
    from zeroconv.scratch.flow import FlowModel
    from zeroconv.scratch.text.t5 import train_sentences

    folder.mkdir(parents=True, exist_ok=True)
    sentences = train_sentences(CAPTIONS, folder / "tokenizer_2")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FlowModel(len(sentences), **(configs or SMALL))
        for parameter in model.transformer.parameters():  # what begins as zero would learn nothing
            if not parameter.any():
                parameter.data.normal_(std=0.02)
    write_flow(folder, model, embedded_vae(), embedded_tokenizer(), sentences)
    return folder
