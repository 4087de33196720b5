"""Which conditions can be read back differentiably, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from zeroconv.conditions import known
from zeroconv.errors import UserError
from zeroconv.evaluation.reader import Maps, Reader
from zeroconv.training.reward import colours, edges, networks
from zeroconv.training.reward.distances import lines_apart, maps_apart, values_apart

# (what was read, given hints (n, C, H, W) in [0, 1], weights (n, 1, H, W)) → (n,)
Compare = Callable[[Tensor, Tensor, Tensor], Tensor]
CompareMaps = Callable[[Maps, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class ClosedForm:
    """A reading that is a smooth function of the pixels (n, 3, H, W) in [0, 1].

    channels: of the hints that are compared; the first ones of those given.
    """

    read: Callable[[Tensor], Tensor]
    compare: Compare
    channels: int = 1
    needs_network = False

    def distances(
        self, pictures: Tensor, hints: Tensor, weights: Tensor, reader: Reader | None = None
    ) -> Tensor:
        """(n,) in [0, 1]."""
        if hints.shape[1] < self.channels == 3:
            hints = hints[:, :1].expand(-1, 3, -1, -1)
        given = hints[:, : self.channels]
        return self.compare(self.read(pictures), given, weights)


@dataclass(frozen=True)
class ByNetwork:
    """A reading of what the second reader sees."""

    compare: CompareMaps
    needs_network = True

    def distances(
        self, pictures: Tensor, hints: Tensor, weights: Tensor, reader: Reader | None = None
    ) -> Tensor:
        """(n,); of classes above 1 where a picture is worse than a guess."""
        assert reader is not None
        if hints.shape[1] == 1:  # a grey picture among coloured ones
            hints = hints.expand(-1, 3, -1, -1)
        return self.compare(networks.maps_of(reader, pictures), hints, weights)


Reading = ClosedForm | ByNetwork

READINGS: dict[str, Reading] = {
    "canny": ClosedForm(edges.canny, lines_apart),
    "lines": ClosedForm(edges.lines, edges.segments_apart),
    "scribble": ClosedForm(edges.scribble, lines_apart),
    "softedge": ClosedForm(edges.softedge, maps_apart),
    "lineart": ClosedForm(edges.lineart, maps_apart),
    "recolor": ClosedForm(colours.recolor, values_apart),
    "threshold": ClosedForm(colours.threshold, values_apart),
    "tile": ClosedForm(colours.coarse, values_apart, 3),
    "palette": ClosedForm(colours.palette, values_apart, 3),
    "blur": ClosedForm(colours.blur, values_apart, 3),
    "invert": ClosedForm(colours.invert, values_apart, 3),
    "shuffle": ClosedForm(colours.itself, colours.histograms_apart, 3),
    "inpaint": ClosedForm(colours.itself, colours.outside_hole, 4),
    "depth": ByNetwork(networks.depth_apart),
    "normal": ByNetwork(networks.normals_apart),
    "segmentation": ByNetwork(networks.classes_apart),
    "person": ByNetwork(networks.person_apart),
    "pose": ByNetwork(networks.poses_apart),
}


def reading_of(condition: str) -> Reading:
    """How hints of a condition are read back. Raises UserError for one that cannot be."""
    entry = known(condition)
    reading = None if entry is None else READINGS.get(entry.name)
    if reading is None:
        raise UserError(
            f"training.reward reads hints back by a smooth function, and there is none for "
            f"{condition!r}; there are {', '.join(READINGS)}, or leave training.reward out."
        )
    return reading
