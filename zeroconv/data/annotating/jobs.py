"""What annotating does to each example of a data set: the hints it draws, and whether it can."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from zeroconv import annotators, conditions
from zeroconv.conditions.figure import Figure
from zeroconv.conditions.hints import pose_parts, shown
from zeroconv.data.cache.keys import drawing_key
from zeroconv.data.dataset import Dataset
from zeroconv.data.example import Example
from zeroconv.data.fitting import BrokenExample, fit, read_patiently
from zeroconv.data.sources.generated import EXACT, Scenes, exact_hint
from zeroconv.data.sources.imagefolder import Folder
from zeroconv.data.sources.packed import Packed
from zeroconv.data.storage.shards import content_key
from zeroconv.errors import UserError
from zeroconv.playroom import render


@dataclass(frozen=True)
class Job:
    """What is done to every example of a data set; small, and the same in every process."""

    dataset: Dataset
    conditions: tuple[str, ...]
    out: Path
    params: dict[str, float] = field(default_factory=dict)
    backend: str | None = None
    # the names of the files; set when the work begins
    stems: tuple[str, ...] = field(default=(), repr=False)

    def key(self, i: int) -> str:
        """Names what the files of example i are made from."""
        drawn = [(name, drawing_key(name)) for name in self.conditions]
        return content_key(self.dataset.key(i), self.dataset.size, drawn, self.params, self.backend)

    def needs(self, condition: str) -> bool:
        """Whether a condition's hints are read by the network that was named."""
        return self.backend is not None and (
            conditions.find(condition).draw is None or len(self.conditions) == 1
        )


def check(job: Job) -> None:
    """Try everything that all pictures need on a small one, before any work. Raises UserError.

    Also where pictures lie in OUT or OUT in their folder, and where a backend would not be used.
    """
    _check_apart(job)
    drawn = [name for name in job.conditions if not _is_exact(job.dataset, name)]
    if job.backend is not None and not any(job.needs(name) for name in drawn):
        raise UserError(
            f"the backend {job.backend} would read none of {', '.join(job.conditions)}; annotate "
            "the condition that it is for alone."
        )
    if job.backend is not None and job.params and job.conditions != ("pose",):
        raise UserError("--set is for hints that are drawn; a backend has no parameters.")
    ramp = np.add.outer(np.arange(128), np.arange(128)).astype(np.uint8)
    trial = Image.fromarray(np.stack([ramp, ramp[::-1], ramp.T], -1))
    for name in drawn:
        _draw(job, name, trial)

    if any(getattr(source, "hinted", False) for source in job.dataset.sources):
        warnings.warn(
            "the pictures have hints of their own, which are not taken over: the new set gets "
            f"those that are drawn ({', '.join(job.conditions)}).",
            stacklevel=3,
        )


def _check_apart(job: Job) -> None:
    """Raises UserError where OUT holds the pictures, or lies in a folder that is searched for
    them.
    """
    here = job.out.resolve()
    for source in job.dataset.sources:
        if isinstance(source, Folder):
            homes = {source.folder}
        elif isinstance(source, Packed):
            homes = {shard.parent for shard in source.shards if isinstance(shard, Path)}
        else:
            continue
        for home in homes:
            there = home.resolve()
            if here == there:
                raise UserError(
                    f"{job.out} is the folder of the pictures: name another one for the training "
                    "set."
                )
            searched = isinstance(source, Folder) and here.is_relative_to(there)
            if searched or there.is_relative_to(here):
                raise UserError(
                    f"{job.out} and the folder of the pictures {home} lie one in the other: name "
                    "another --out, or the next run would take its hints for pictures."
                )


def _is_exact(dataset: Dataset, condition: str) -> bool:
    return condition in EXACT and all(isinstance(source, Scenes) for source in dataset.sources)


def draw_hints(
    job: Job, i: int
) -> tuple[Example, dict[str, Image.Image], tuple[np.ndarray | Figure, ...] | None]:
    """An example, a hint a condition, and the people of a pose: exact where the playroom knows it,
    read by a network where one is asked for, else drawn. A scene is rendered once for all of them.
    Raises BrokenExample; UserError where the storage fails.
    """
    dataset = job.dataset
    source, index = dataset.rows[i]
    made_from, exact = dataset.sources[source], {}
    if isinstance(made_from, Scenes) and (
        asked := [name for name in job.conditions if name in EXACT]
    ):
        scene = render(made_from.seeds[index], dataset.size or 128)
        posed = tuple(scene.keypoints) if "pose" in asked else None
        example = Example(dataset.name(i), scene.image, (scene.caption,), people=posed)
        exact = {name: exact_hint(scene, name) for name in asked}
    else:
        read = read_patiently(lambda: made_from.example(index, dataset.size, None))
        example = fit(replace(read, hint=None), dataset.size, None)

    hints: dict[str, Image.Image] = {}
    people: tuple[np.ndarray | Figure, ...] | None = example.people
    for name in job.conditions:
        if name in exact:
            hints[name] = exact[name]
            continue
        try:
            hints[name], drawn_people = _draw(job, name, example.image)
        except UserError as error:
            raise BrokenExample(f"{example.key}: {error}") from error
        people = drawn_people or people
    return Example(example.key, example.image, example.text), hints, people


def _draw(
    job: Job, condition: str, image: Image.Image
) -> tuple[Image.Image, tuple[Figure, ...] | None]:
    """A hint, and the people of a pose hint. Raises UserError."""
    if condition == "pose":
        asked = pose_parts(job.params)
        backend = job.backend if job.needs("pose") else None
        persons = annotators.read("pose", image, backend, hands=asked["hands"], face=asked["face"])
        people = tuple(shown(person.figure, asked) for person in persons)
        return annotators.draw_pose(people, image.size), people
    backend = job.backend if job.needs(condition) else None
    return annotators.annotate(condition, image, backend, **job.params), None
