"""What `zeroconv generate` knows beside its options when it makes a picture again or works
through a folder, and which calls of `generate` that needs.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zeroconv.cli.generate.adapters import AdapterSpec
from zeroconv.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")  # of `generation.metadata.files`


class BadPicture(UserError):
    """A picture that cannot be used; of a folder it is set aside."""


@contextmanager
def of_pictures() -> Iterator[None]:
    """Inside, a UserError is that of a picture: BadPicture."""
    try:
        yield
    except UserError as error:
        raise BadPicture(*error.args) from error


@dataclass(frozen=True)
class Batch:
    """The pictures that were made at once with one: a sum of floats can depend on how many there
    are. row: the one's number among them. For noise "batch" also the whole call: its first seed,
    how many pictures it made, and the number of this batch's first.
    """

    prompts: list[str]
    seeds: list[int]
    row: int
    first_seed: int
    total: int
    first: int


class Models:
    """Bases and controls, each loaded once."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def backbone(self, base: str, **options: Any) -> Any:
        from zeroconv.backbones import load_backbone

        key = repr((base, sorted(options.items(), key=str)))
        if key not in self._loaded:
            self._loaded[key] = load_backbone(base, **options)
        return self._loaded[key]

    def control(self, name: str, base: str, backbone: Any) -> Any:
        from zeroconv.cli.generate.controls import load_control

        key = repr((name, base, id(backbone)))
        if key not in self._loaded:
            self._loaded[key] = _placed(load_control(name, base, backbone), backbone)
        return self._loaded[key]


def _placed(net: Any, backbone: Any) -> Any:
    """A control in as few bits as its base, and where that computes.

    One of an offloaded base is moved when it is needed.
    """
    if backbone.quantised is not None:
        from zeroconv.layers.quantised import quantise_

        for network in net.networks():
            network.requires_grad_(False)
            for child in network.children():  # each keeps its first and last convolution
                quantise_(child, backbone.quantised)
    return net if backbone.offload is not None else net.to(backbone.device)


@dataclass
class Making:
    """options: those of the call, to be kept in its pictures. batch: of a picture made again.
    inputs: further files that may not be written over. work: the sign of the same work done
    already, in a folder.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    batch: Batch | None = None
    inputs: Sequence[Path] = ()
    models: Models = field(default_factory=Models)
    work: str | None = None
    # of --from: the picture and mask that it brings, their names, and where LoRAs of tags lie
    pictures: dict[str, Any] = field(default_factory=dict)
    image: str | None = None
    mask: str | None = None
    lora_folders: Sequence[str] | None = None
    adapters: Sequence[AdapterSpec] = ()  # image prompts and references

    def mask_for(self, mask: Path | None, other_image: bool) -> str | None:
        """The mask's name: given, else the picture's own, which belongs to its image alone."""
        kept = None if other_image else self.mask
        return kept if mask is None else str(mask)

    def given_anew(self, image: bool, mask: bool) -> None:
        """Forget what the options give in place of what a picture brings."""
        if image:
            self.pictures = {}
        if mask:
            self.pictures.pop("mask", None)

    def kept(self) -> dict[str, Any]:
        """What its pictures keep of it."""
        kept: dict[str, Any] = {"options": dict(self.options)} if self.options else {}
        return {**kept, "work": self.work} if self.work else kept


@dataclass
class Calls:
    """The prompts and seeds of one call of `generate`, and which of its pictures are wanted."""

    prompts: Sequence[str]
    request: Mapping[str, Any]
    batch_size: int
    again: Batch | None

    def number(self, number: int) -> int | None:
        """A picture's number in the call → its number among the wanted ones."""
        if self.again is None:
            return number
        return 0 if number == self.again.row else None

    def made(self, number: int) -> dict[str, Any]:
        """Prompt, seed and batch of a wanted picture."""
        if self.again is not None:
            batch = self.again
            made: dict[str, Any] = {"prompt": batch.prompts[batch.row]}
            return {**made, "seed": batch.seeds[batch.row], "batch": vars(batch)}

        count, seed = self.request["count"], self.request["seed"]
        total = len(self.prompts) * count
        first = number - number % self.batch_size
        rows = range(first, min(first + self.batch_size, total))
        made = {"prompt": self.prompts[number // count], "seed": seed + number}
        if len(rows) == 1 and (total == 1 or self.request["noise"] != "batch"):
            return made
        batch = Batch(
            [self.prompts[i // count] for i in rows],
            [seed + i for i in rows],
            number - first,
            seed,
            total,
            first,
        )
        return {**made, "batch": vars(batch)}

    def arguments(self, backbone: Any, size: tuple[int, int]) -> tuple[list[str], dict[str, Any]]:
        """The prompts and what else is to be given to `generate`, in place of the request's."""
        if self.again is None:
            return list(self.prompts), {"batch_size": self.batch_size}
        batch = self.again
        options: dict[str, Any] = {"seed": batch.seeds, "count": 1}
        options["batch_size"] = len(batch.prompts)
        if self.request["noise"] == "batch":
            from zeroconv.generation.samplers.noise import batch_latents

            sides = (size[1] // backbone.latent_scale, size[0] // backbone.latent_scale)
            seeds = [batch.first_seed + i for i in range(batch.total)]
            latents = batch_latents(seeds, (backbone.latent_channels, *sides))
            options["latents"] = latents[batch.first : batch.first + len(batch.prompts)]
        return batch.prompts, options

    @contextmanager
    def quiet(self, loras: bool = False) -> Iterator[None]:
        """Inside, nothing is noted on latents that stand for the noise of a whole call, nor, with
        `loras`, on tags whose files are merged.
        """
        with warnings.catch_warnings():
            if self.again is not None:
                warnings.filterwarnings("ignore", "noise 'batch' changes nothing")
            if loras:
                warnings.filterwarnings("ignore", "prompt: <lora:")
            yield


def machine() -> dict[str, Any]:
    """What sums of floats can depend on."""
    import torch

    from zeroconv import __version__

    kind = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    versions = {"zeroconv": __version__, "torch": torch.__version__}
    return {**versions, "machine": kind, "threads": torch.get_num_threads()}
