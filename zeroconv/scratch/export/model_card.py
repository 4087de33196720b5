"""The card of a trained playroom base: how it was made, from what, under which licences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from zeroconv.playroom.stickers import SOURCES
from zeroconv.scratch.corpus.batch import KINDS
from zeroconv.scratch.corpus.shards import load_shard, shard_names

TEXT = """# playroom

A Stable Diffusion in miniature, made by zeroconv: AutoencoderKL (8 pixels a latent, {channels}
latent channels), UNet with 12 skip connections and a middle block, own CLIP text model and
tokenizer. {size}×{size} pixels, v-prediction, scaled-linear betas, 1000 steps. It knows rendered
rooms with simple objects and people, and emoji-like drawings; nothing else.

It loads in `diffusers.StableDiffusionPipeline.from_pretrained` and in
`zeroconv.load_backbone("playroom")`.

## How it was made

`zeroconv playroom train-base OUT --stickers STICKERS`, on two CPU cores, weights from nothing:

| stage | steps | minutes |
|---|---|---|
{stages}

Pictures: {scenes} rendered scenes of the train split and {stickers} compositions of stickers of
the train split; 10% of the prompts empty. The diffusion weights are the exponential moving
average. Optimiser: Muon for matrices and filters, AdamW for the rest.

## Licences

The weights are under the MIT licence of this project. The rendered scenes are this project's own.
The sticker art is:

{sources}

Drawings were rasterised, scaled, placed, mirrored where the subject allows and laid on plain
backgrounds.
"""


def card(pictures: Path, size: int, channels: int, stages: Mapping[str, Mapping]) -> str:
    """README.md of the exported folder; `stages` maps a stage to its step and seconds."""
    names = shard_names(pictures)
    counts = {
        kind: sum(len(load_shard(pictures, name, [])) for name in names if name.startswith(kind))
        for kind in KINDS
    }
    rows = [
        f"| {name} | {done['step']:,} | {done['seconds'] / 60:.0f} |"
        for name, done in stages.items()
    ]
    sources = [f"- {art.attribution} {art.project}" for art in SOURCES.values()]

    return TEXT.format(
        channels=channels,
        size=size,
        stages="\n".join(rows),
        scenes=f"{counts['scenes']:,}",
        stickers=f"{counts['stickers']:,}",
        sources="\n".join(sources),
    )
