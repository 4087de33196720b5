"""Small rounds of `zeroconv evaluate` while a run trains: pictures for a few held-out hints, read
back and scored.

The hint gain says that the hint changes what is predicted; only pictures say how well it is
followed. Every round asks the averaged weights for the same hints, captions and seeds, so that
rounds differ by the training alone. Beside what the pictures score against their own hints stand
another picture's hint (chance) and the real pictures through the autoencoder (the ceiling, measured
once).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from zeroconv.backbones import UNetBackbone
from zeroconv.baselines import Net
from zeroconv.conditions import find
from zeroconv.data.dataset import Dataset
from zeroconv.data.fitting import BrokenExample
from zeroconv.errors import UserError
from zeroconv.evaluation.fidelity import lifts, scores_of, tabulate, through_vae
from zeroconv.evaluation.pairs import Pair, as_pair
from zeroconv.evaluation.reading import as_picture, make_read
from zeroconv.files import atomic_write
from zeroconv.generation import Control, generate
from zeroconv.training.checkpoint import random_state, set_random_state
from zeroconv.training.execution.precision import autocast
from zeroconv.training.recipes.recipe import Recipe
from zeroconv.training.reporting.samples import grid, spread

_MEND = "set training.evaluate_every to 0, and use `zeroconv evaluate` on the finished control"


def check_rounds(recipe: Recipe) -> None:
    """Raises UserError, before data is cached, for a condition that no round could read back."""
    if recipe.training.evaluate_every:
        try:
            find(recipe.data.condition)
        except UserError as error:
            why = str(error).rstrip(".")
            raise UserError(
                f"training.evaluate_every needs a condition to read back: {why}; or {_MEND}."
            ) from error


@dataclass(frozen=True)
class Group:
    """Pairs of one shape, and what the score of a picture at its best looks like."""

    pairs: list[Pair]
    seeds: list[int]
    ceiling: list[Any]  # read from the real pictures after the autoencoder


class Rounds:
    """A round: `run(step)`. It draws no random numbers that training would miss, and changes no
    weights.
    """

    def __init__(self, recipe: Recipe, backbone: UNetBackbone, held_out: Dataset) -> None:
        """`held_out`: opened with the run's condition and size. Reads the real pictures back, for
        the ceiling.

        Raises UserError where the condition cannot be read back from pictures of this data, or too
        few can be used.
        """
        self.settings, self.backbone = recipe.training, backbone
        self.weighted_captions = recipe.data.caption_weights
        self.condition = find(recipe.data.condition).name
        self.folder = Path(recipe.out) / "samples"
        named = recipe.data.validation or recipe.data.train
        rendered = all(spec.startswith("playroom") for spec in named)
        self.read, self.judge = make_read(
            self.condition, "auto", "playroom" if rendered else named[0]
        )
        try:
            with undisturbed():
                pairs = choose(held_out, self.condition, self.settings.evaluate_count)
                self.groups = [self._group(some) for some in by_shape(pairs)]
        except UserError as error:
            raise UserError(
                f"training.evaluate_every: {str(error).rstrip('.')}; or {_MEND}."
            ) from error

    def run(self, step: int, control: Net) -> tuple[dict[str, Any], Path]:
        """Figures of a round as JSON values (see `figures`), and its sheet of pictures."""
        made = self.make(control)
        with undisturbed():
            reads = [self.read(pictures) for pictures in made]
        path = self.folder / f"evaluation-{step:08d}.png"
        with atomic_write(path) as temporary:
            self._sheet(made, reads).save(temporary)
        return figures(self.condition, self.groups, reads), path

    def make(self, control: Net) -> list[list[Image.Image]]:
        """The pictures of a round, group by group. All that processes have to do which only lend
        their weights.
        """
        was_training = control.training
        control.eval()
        try:
            with undisturbed():
                return [self._made(control, group) for group in self.groups]
        finally:
            control.train(was_training)

    def _group(self, pairs: Sequence[tuple[int, Pair]]) -> Group:
        seeds, some = [seed for seed, _ in pairs], [pair for _, pair in pairs]
        ceiling = self.read(through_vae(self.backbone, [pair.image for pair in some]))
        return Group(some, seeds, ceiling)

    def _made(self, control: Net, group: Group) -> list[Image.Image]:
        settings, (width, height) = self.settings, group.pairs[0].image.size
        kind = self.condition if hasattr(control, "of_kind") else None
        with autocast(settings.precision, self.backbone.device):
            return generate(
                self.backbone,
                [pair.caption for pair in group.pairs],
                [Control(control, [pair.hint for pair in group.pairs], kind=kind)],
                cfg=settings.sample_cfg,
                steps=settings.sample_steps,
                seed=group.seeds,
                height=height,
                width=width,
                batch_size=settings.batch_size,
                plain_prompt=not self.weighted_captions,
            )

    def _sheet(self, made: list[list[Image.Image]], reads: list[list[Any]]) -> Image.Image:
        """Hint | made | read back | real, a pair a row; two pairs beside each other where there are
        many.
        """
        rows = [
            [
                pair.hint.convert("RGB"),
                picture,
                as_picture(self.condition, read, picture.size),
                pair.image,
            ]
            for group, pictures, results in zip(self.groups, made, reads, strict=True)
            for pair, picture, read in zip(group.pairs, pictures, results, strict=True)
        ]
        if len(rows) > 6:  # of an odd number the last is left out
            half = len(rows) // 2
            rows = [
                [*left, *right]
                for left, right in zip(rows[:half], rows[half : 2 * half], strict=True)
            ]
        return grid([list(column) for column in zip(*rows, strict=True)])


def choose(held_out: Dataset, condition: str, count: int) -> list[tuple[int, Pair]]:
    """`count` pairs, evenly spread over the held-out pictures, each with its seed; the same ones
    every time.

    Left out: pictures whose hints are of another condition (`?condition=`), broken ones, and, of
    poses, those that show nobody. Raises UserError where fewer than two are left.
    """
    rows = [
        i
        for i in range(len(held_out))
        if find(held_out.condition_of(i) or condition).name == condition
    ]
    first = set(spread(len(rows), count))
    order = sorted(range(len(rows)), key=lambda i: (i not in first, i))
    pairs: list[tuple[int, Pair]] = []
    for i in order:
        if len(pairs) == count:
            break
        try:
            pair = as_pair(held_out[rows[i]], condition)
        except BrokenExample:
            continue
        if condition != "pose" or pair.truth:
            pairs.append((len(pairs), pair))
    if len(pairs) < 2:
        raise UserError(
            f"{len(pairs)} of the held-out pictures can be read back as {condition}, and two are "
            "needed; name others in data.validation."
        )
    return pairs


def by_shape(pairs: Sequence[tuple[int, Pair]]) -> list[list[tuple[int, Pair]]]:
    """Pairs of one shape together; one that is alone in its shape has no other's hint to compare
    with and is left out, unless all are alone: then UserError.
    """
    shapes: dict[tuple[int, int], list[tuple[int, Pair]]] = {}
    for seed, pair in pairs:
        shapes.setdefault(pair.image.size, []).append((seed, pair))
    groups = [some for some in shapes.values() if len(some) > 1]
    if not groups:
        raise UserError(
            "no two of the held-out pictures have one shape; raise training.evaluate_count."
        )
    return groups


def figures(condition: str, groups: Sequence[Group], reads: Sequence[list[Any]]) -> dict[str, Any]:
    """{"n": pictures, "metrics": {metric: {"own", "shuffled", "ceiling", "lift": {"mean", "low",
    "high"}}}}.

    The lift is own's over shuffled's, positive where own is better. The first metric is the
    condition's main one."""
    stats: dict[str, list[dict[str, Any]]] = {}
    for group, read in zip(groups, reads, strict=True):
        truths = [pair.truth for pair in group.pairs]
        for name, some in scores_of(
            condition, truths, {"own": read, "ceiling": group.ceiling}
        ).items():
            stats.setdefault(name, []).extend(some)
    table, lift = tabulate(stats), lifts(stats)
    return {
        "n": len(stats["own"]),
        "metrics": {
            metric: {
                name: {key: round(value, 5) for key, value in interval.items()}
                for name, interval in {**columns, "lift": lift[metric]["over shuffled"]}.items()
            }
            for metric, columns in table.items()
        },
    }


def in_one_line(figures: dict[str, Any]) -> str:
    """A round in one line."""
    metric, columns = next(iter(figures["metrics"].items()))
    score = columns["own"]
    return (
        f"{metric} {score['mean']:.3f} [{score['low']:.3f}, {score['high']:.3f}] of "
        f"{figures['n']} pictures (another's hint {columns['shuffled']['mean']:.3f}, ceiling "
        f"{columns['ceiling']['mean']:.3f})"
    )


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within it random numbers may be drawn; afterwards every generator stands where it stood."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)
