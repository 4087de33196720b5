"""`training.optimizer` by its class: {class: torch.optim.RAdam, betas: [0.9, 0.99]}."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ConfigDict, Field, model_validator

from zeroconv.training.recipes.settings import Strict

# modules whose classes a recipe may name, and the package that brings each; nothing else is
# imported, because importing runs code
MODULES = {
    "torch.optim": "torch",
    "bitsandbytes.optim": "bitsandbytes",
    "prodigyopt": "prodigyopt",
    "lion_pytorch": "lion-pytorch",
    "came_pytorch": "came-pytorch",
    "dadaptation": "dadaptation",
}
# those that a step of ours does not serve
REFUSED = {
    "LBFGS": "it computes the loss several times a step",
    "SparseAdam": "it needs sparse gradients",
    "Optimizer": "it is the class that the others are made from",
    "Muon": "zeroconv's own is training.optimizer muon",
}
_OURS = {"lr": "training.learning_rate", "weight_decay": "training.weight_decay"}
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_MOST = 32  # options, and numbers of one


class OptimizerClass(Strict):
    """An optimiser of an allow-list of modules, and its own options."""

    model_config = ConfigDict(extra="allow", populate_by_name=True, serialize_by_alias=True)

    name: str = Field(alias="class")

    @property
    def options(self) -> dict[str, Any]:
        """What stands beside the class."""
        return dict(self.model_extra or {})

    def __str__(self) -> str:
        return self.name

    @model_validator(mode="after")
    def _is_of_the_list(self) -> OptimizerClass:
        module, _, kind = self.name.rpartition(".")
        if not _NAME.fullmatch(self.name) or module not in MODULES:
            raise ValueError(
                f"training.optimizer.class is {self.name[:120]!r}; give a class of "
                f"{', '.join(MODULES)}, such as torch.optim.RAdam"
            )
        if kind in REFUSED:
            raise ValueError(
                f"training.optimizer.class {self.name} cannot be used: {REFUSED[kind]}"
            )
        if len(self.options) > _MOST:
            raise ValueError(f"training.optimizer has more than {_MOST} options")
        for name, value in self.options.items():
            if name in _OURS:
                raise ValueError(f"training.optimizer.{name} is {_OURS[name]}; set that")
            _check_option(name, value)
        return self


def _check_option(name: str, value: Any) -> None:
    """Numbers, yes and no, words, and lists of numbers."""
    several = value if isinstance(value, list | tuple) else [value]
    plain = all(isinstance(one, bool | int | float | str | None) for one in several)
    if not name.isidentifier() or not plain or len(several) > _MOST:
        raise ValueError(
            f"training.optimizer.{name[:80]} is no option; give numbers, texts, true or false, or "
            "a list of numbers"
        )
