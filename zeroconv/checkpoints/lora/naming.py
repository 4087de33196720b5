"""Where in a base's part the modules of a LoRA are, by every name that they have in files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from zeroconv.checkpoints.flow.file import table_of
from zeroconv.checkpoints.flow.layout import Joined, Ranges, Table, count
from zeroconv.checkpoints.lora.changes import Change
from zeroconv.checkpoints.lora.rows import rows_of
from zeroconv.checkpoints.names import Topology, unet_names


@dataclass(frozen=True)
class Target:
    """A module of the base, and which rows of the file's module are its own: all for None."""

    module: str
    rows: Ranges | None = None
    total: int = 0

    def of(self, change: Change, where: str) -> Change:
        if self.rows is None:
            return change
        return rows_of(change, self.rows, self.total, where)


def flat(name: str) -> str:
    """A name with underscores for dots, as kohya writes it."""
    return name.replace(".", "_")


def targets_of(state: Mapping[str, Tensor], part: str) -> dict[str, list[Target]]:
    """A module's name with underscores for dots, in every layout → where it is in the base."""
    modules = [key.removesuffix(".weight") for key in state if key.endswith(".weight")]
    names = {flat(module): [Target(module)] for module in modules}
    # transformers before 5 wrote `text_model.` before every name, and files do still
    if part != "unet":
        bare = {name.removeprefix("text_model_"): target for name, target in names.items()}
        return bare | {f"text_model_{name}": target for name, target in bare.items()}
    table = table_of(state)
    if table is not None:
        return _of_table(table, state) | names
    original = unet_names(Topology.of_diffusers(state))
    for module in modules:
        owner = module
        while owner and owner not in original:
            owner = owner.rpartition(".")[0]
        if owner:
            theirs = original[owner] + module[len(owner) :]
            names.setdefault(flat(theirs), [Target(module)])
    return names


def _of_table(table: Table, state: Mapping[str, Tensor]) -> dict[str, list[Target]]:
    """A transformer's original names. XLabs' LoRAs of FLUX.1 have query, key and value of a single
    block without its MLP.
    """
    for i in range(count(table, "single_blocks.")):
        start = f"single_transformer_blocks.{i}.attn.to_"
        table[f"single_blocks.{i}.qkv"] = Joined(tuple(start + part for part in "qkv"))
    names = {}
    for theirs, joined in table.items():
        modules = joined.modules
        if any(f"{module}.weight" not in state for module in modules):
            continue
        if len(modules) == 1 and not joined.swapped:
            names[flat(theirs)] = [Target(modules[0])]
            continue
        rows = [state[f"{module}.weight"].shape[0] for module in modules]
        total = sum(rows)
        ranges = Joined(modules, tuple(rows), joined.swapped).ranges(total)
        names[flat(theirs)] = [
            Target(module, part, total) for module, part in zip(modules, ranges, strict=True)
        ]
    return names
