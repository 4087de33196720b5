"""What an experiment trains on and is tested on: scenes of the playroom, or stickers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from experiments import measures
from zeroconv.data import open_dataset
from zeroconv.evaluation.pairs import Pair, load_pairs


@dataclass(frozen=True)
class Source:
    """Pictures of one kind."""

    data: str  # "playroom" or "stickers"
    condition: str  # what their hints show
    folder: str = "data/stickers"  # of stickers; `zeroconv playroom stickers` makes it

    def __post_init__(self) -> None:
        if self.data not in ("playroom", "stickers"):
            raise SystemExit(f"zeroconv: --data is playroom or stickers, not {self.data!r}")

    def train(self, count: int) -> str:
        """So many pictures to train on, as `data.train` of a recipe."""
        if self.data == "stickers":
            # each laid on as many backgrounds as it takes
            views = -(-count // len(open_dataset(f"stickers:{self.folder}?split=train")))
            return f"stickers:{self.folder}?split=train&views={views}&limit={count // views}"
        people = "?only=person" if self.condition == "pose" else ""
        return f"playroom:train:{count}{people}"

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of a recipe that differ from canny hints of scenes, which experiments train."""
        settings: dict[str, Any] = {}
        if self.condition != "canny":
            settings["data__condition"] = self.condition
        if self.data == "stickers":
            settings["data__validation"] = f'["stickers:{self.folder}?split=val&limit=64"]'
        elif self.condition == "pose":
            settings["data__validation"] = '["playroom:val:64?only=person"]'

        return settings

    def test(self, count: int, size: int) -> list[Pair]:
        data = f"stickers:{self.folder}" if self.data == "stickers" else "playroom:test"

        return load_pairs(data, self.condition, count, size)

    def scenes(self, pairs: list[Pair]) -> list[Any] | None:
        """Whose objects a reader can name; None for stickers."""
        return None if self.data == "stickers" else measures.scenes_of(pairs)

    def suffix(self, figure: str) -> str:
        """The name of the result: fig08, fig08-pose, fig08-stickers, fig08-stickers-scribble."""
        words = [figure]
        words += ["stickers"] if self.data == "stickers" else []
        words += [self.condition] if self.condition != "canny" else []

        return "-".join(words)
