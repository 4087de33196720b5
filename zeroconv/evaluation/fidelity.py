"""Generate from held-out hints, read the condition back from the pictures, compare; beside it what
chance would give.

Columns of a report:
  own       pictures made with a hint, scored against that hint
  shuffled  the same pictures scored against the hint of another pair: what pictures of this world
            share anyway
  none      pictures of the same prompts and seeds made without control, scored against the hint
  ceiling   the real pictures through the VAE and back, scored against the hint: no generator can do
            better
  real      the real pictures themselves: where a network reads, its own error; else the hint drawn
            twice
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from zeroconv.backbones import Backbone, load_backbone
from zeroconv.baselines import Net
from zeroconv.conditions import CONDITIONS
from zeroconv.conditions.scores import METRICS
from zeroconv.errors import UserError, without_secrets
from zeroconv.evaluation import likeness
from zeroconv.evaluation.adherence import caption_figures
from zeroconv.evaluation.controls import condition_of, of_condition
from zeroconv.evaluation.making import Maker, through_vae
from zeroconv.evaluation.metrics import known_numbers, paired_interval, summarise
from zeroconv.evaluation.pairs import Pair, load_pairs
from zeroconv.evaluation.reading import make_read
from zeroconv.generation.engines import check_engine
from zeroconv.generation.guidance import settled
from zeroconv.generation.saving import EXACT, parse_fast

# the four prompt settings of the paper's figure 8, under our names and under its own
PROMPTS = {
    "own": "own",
    "perfect": "own",
    "empty": "empty",
    "none": "empty",
    "insufficient": "insufficient",
    "conflicting": "conflicting",
}
INSUFFICIENT = "a high-quality, detailed, and professional image"


@dataclass
class Shown:
    """The pictures behind a report."""

    pairs: list[Pair]
    made: list[Image.Image]
    plain: list[Image.Image]
    reads: list[Any] = field(default_factory=list)  # read back from `made`
    scores: list[dict[str, Any]] = field(default_factory=list)  # of `made`


def evaluate(
    control: str | os.PathLike | Net,
    *,
    data: str = "playroom:test",
    base: str | Backbone = "playroom",
    count: int = 200,
    count_none: int | None = None,
    prompts: str = "own",
    guidance: str | None = None,
    cfg: float | None = None,
    steps: int = 12,
    seed: int = 0,
    batch_size: int = 16,
    fast: Any = "off",
    engine: str = "torch",
    judge: str = "auto",
    features: str = "auto",
    clip: str | None = None,
    varied: int = 8,
    pictures: list[Shown] | None = None,
    common: dict[Any, Any] | None = None,
    callback: Callable[..., None] | None = None,
    condition: str | None = None,
) -> dict[str, Any]:
    """Measure how well `control` is followed; returns the report as plain JSON values
    (None where a figure is no number, as the limits of two pictures are).

    `control`: a ControlNet or a baseline, or the name or folder of one; a baseline takes guidance
    both or cond. `guidance`, `cfg`: None is the backbone's own, see `generate`.

    `fast`, `engine`: as `generate` takes them, to measure what an approximate mode loses.
    `count_none` pictures are made without control (default: as many). `prompts` is a setting of the
    paper's ablation: own caption, empty, insufficient, or conflicting (another pair's caption).
    With empty prompts the two halves of guidance differ by the control alone, which `cond` and
    `resolution` then strengthen (paper, figure 5). `judge`: see `make_read`. `features`, of FID and
    KID: see `likeness.make_features`. `clip`: a folder or hub id of a CLIP, for its score. `varied`
    pairs are made with three more seeds, for the diversity. `pictures`, a list, gets what was made.
    `common`, a dict, keeps what does not depend on the control (pairs, pictures without control and
    through the VAE), for further calls with models and data that stay as they are. The same
    arguments give the same report. `callback`: as `generate` takes it, of all pictures.
    `condition`: what the hints show, for a control that does not say so; of a Union control, the
    kind that is measured, which its name may say too ("union.safetensors:canny"). Raises UserError
    for unknown names or data.
    """
    if prompts not in PROMPTS:
        raise UserError(
            f"There is no prompt setting {prompts!r}; choose from {', '.join(PROMPTS)}."
        )
    backbone = load_backbone(base) if isinstance(base, str) else base
    net = of_condition(control, backbone, condition)
    guidance, cfg = settled(backbone, guidance, cfg)
    condition = condition_of(net, condition)
    common = {} if common is None else common
    size = backbone.default_size
    pairs = _once(
        common,
        ("pairs", data, condition, count, size),
        lambda: load_pairs(data, condition, count, size),
    )
    real = [pair.image for pair in pairs]

    texts, seeds = prompts_of(pairs, prompts), [seed + i for i in range(count)]
    options: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "cfg": cfg}
    options |= {} if parse_fast(fast) == EXACT else {"fast": parse_fast(fast)}
    options |= {} if check_engine(engine) == "torch" else {"engine": engine}
    options["plain_prompt"] = True  # captions are read as they stand, as in training
    options |= {} if callback is None else {"callback": callback}
    maker = Maker(backbone, net, pairs, texts, seeds, guidance, options)
    few = count if count_none is None else min(count, count_none)
    sets = _sets(maker, data, few, common)

    read, asked = make_read(condition, judge, data)
    reads = {name: read(images) for name, images in (*sets.items(), ("real", real)) if images}
    stats = scores_of(condition, [pair.truth for pair in pairs], reads)
    if pictures is not None:
        pictures.append(Shown(pairs, sets["own"], sets["none"], reads["own"], stats["own"]))

    captioned = PROMPTS[prompts] == "own" and data.startswith("playroom")
    report = {
        "control": str(control) if isinstance(control, str | os.PathLike) else "given",
        "condition": condition,
        "base": backbone.name,
        "data": without_secrets(str(data)),
        "prompts": PROMPTS[prompts],
        "n": {name: len(stats[name]) for name in COLUMNS if name in stats},
        "seeds": [seeds[0], seeds[-1]],
        "steps": steps,
        "guidance": guidance,
        "cfg": cfg,
        "fast": parse_fast(fast).words(),
        "engine": engine,
        "judge": asked,
        "metrics": tabulate(stats),
        "lift": lifts(stats),
        "pictures": _likeness(maker, sets, features, varied),
        "caption": caption_figures(pairs, sets, real) if captioned else {},
        **({"clip": likeness.clip_scores(clip, texts, sets)} if clip else {}),
    }
    return known_numbers(report)


def _once(common: dict[Any, Any], key: tuple, make: Callable[[], Any]) -> Any:
    if key not in common:
        common[key] = make()
    return common[key]


def _sets(
    maker: Maker, data: str, few: int, common: dict[Any, Any]
) -> dict[str, list[Image.Image]]:
    """Column → its pictures: `few` of them without control, of every pair for the rest."""
    pairs, backbone = maker.pairs, maker.backbone
    coded = ("ceiling", id(backbone), data, *(pair.name for pair in pairs))
    return {
        "own": maker.controlled(len(pairs)),
        "none": _once(common, maker.uncontrolled_key(few), lambda: maker.uncontrolled(few)),
        "ceiling": _once(
            common, coded, lambda: through_vae(backbone, [pair.image for pair in pairs])
        ),
    }


def _likeness(
    maker: Maker, sets: dict[str, list[Image.Image]], features: str, varied: int
) -> dict[str, Any]:
    """How near the pictures are to real ones, and how far those of other seeds are apart."""
    extract, named = likeness.make_features(features)
    more = [maker.controlled(varied, 10_000 * k) for k in (1, 2, 3)] if varied else []
    return {
        "features": named,
        **likeness.distances(extract, [pair.image for pair in maker.pairs], sets),
        **likeness.diversity(extract, sets["own"], more, varied),
    }


def scores_of(
    condition: str, truths: list[Any], reads: dict[str, list[Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Column → what each picture contributes; `shuffled` asks the pictures of `own` for the next
    pair's hint.
    """
    score = CONDITIONS[condition].score
    stats = {
        name: [score(t, r) for t, r in zip(truths, readings, strict=False)]
        for name, readings in reads.items()
    }
    stats["shuffled"] = [
        score(t, r) for t, r in zip(truths[1:] + truths[:1], reads["own"], strict=True)
    ]
    return stats


COLUMNS = ("own", "shuffled", "none", "ceiling", "real")


def tabulate(stats: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Metric → column → mean and 95% interval."""
    metrics = stats["own"][0]
    columns = [name for name in COLUMNS if name in stats]
    return {
        m: {c: summarise([s[m] for s in stats[c]], METRICS[m].kind) for c in columns}
        for m in metrics
    }


def lifts(stats: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Metric → "over shuffled", "over none" → by how much `own` is better, with the interval of
    that difference.

    Positive is better whichever way the metric runs. Both sides are the same pairs, resampled
    together.
    """
    table: dict[str, dict[str, dict[str, float]]] = {}
    for metric in stats["own"][0]:
        sign = 1 if METRICS[metric].better == "higher" else -1
        table[metric] = {}
        for other in ("shuffled", "none"):
            theirs = [s[metric] for s in stats.get(other, [])]
            ours = [s[metric] for s in stats["own"][: len(theirs)]]
            if not theirs:
                continue
            a, b = (ours, theirs) if sign > 0 else (theirs, ours)
            table[metric][f"over {other}"] = paired_interval(a, b, METRICS[metric].kind)
    return table


def prompts_of(pairs: Sequence[Pair], setting: str) -> list[str]:
    """One prompt a pair, in a setting of the paper's figure 8."""
    captions = [pair.caption for pair in pairs]
    return {
        "own": captions,
        "empty": [""] * len(pairs),
        "insufficient": [INSUFFICIENT] * len(pairs),
        "conflicting": captions[1:] + captions[:1],
    }[PROMPTS[setting]]
