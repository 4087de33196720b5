"""Which figures of the paper are reproduced, what each needs, and the file it stands in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from zeroconv.errors import UserError

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Figure:
    title: str
    shipped: bool  # the weights in the package are enough; otherwise it trains first


FIGURES = {
    4: Figure("sudden convergence, and what the batch size does to it", False),
    5: Figure("guidance: where control enters it, with and without a prompt", True),
    6: Figure("two conditions in one picture", True),
    7: Figure("nine conditions without a prompt", True),
    8: Figure("ablation: zero convolutions, Gaussian ones, ControlNet-lite", False),
    9: Figure("baselines that read the same hints", False),
    10: Figure("how many pictures training needs", False),
    11: Figure("what an ambiguous hint is taken for", True),
    12: Figure("transfer to another base model", True),
}
ORDER = (7, 5, 6, 11, 12, 4, 8, 10, 9)  # what ends soonest and shows most comes first


def module_of(number: int, folder: Path = HERE) -> str | None:
    """The module of a figure, `experiments.fig07_no_prompt`, found by its file's name; None where
    there is none.
    """
    paths = sorted(folder.glob(f"fig{number:02d}_*.py"))
    return f"experiments.{paths[0].stem}" if paths else None


def chosen(words: list[str]) -> list[int]:
    """Figure numbers of words such as fig7, 8, fig11_ambiguous, shipped, all; in the order in which
    they run.

    Raises UserError for a word that names none.
    """
    wanted: set[int] = set()
    for word in words:
        match = re.fullmatch(r"(?:fig(?:ure)?)?[-_ ]?0?(\d+)(?:_\w+)?", word.lower())
        if word == "all":
            wanted |= set(FIGURES)
        elif word == "shipped":
            wanted |= {number for number, figure in FIGURES.items() if figure.shipped}
        elif match and int(match[1]) in FIGURES:
            wanted.add(int(match[1]))
        else:
            known = ", ".join(f"fig{number}" for number in FIGURES)
            raise UserError(
                f"there is no figure {word!r} to reproduce; choose from {known}, shipped, or all."
            )
    return sorted(wanted, key=ORDER.index)
