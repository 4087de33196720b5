"""ControlNet-LLLite files (kohya-ss): which projection of a UNet each of their modules belongs to.

A module is named after its projection, `lllite_unet_` and the name with underscores, of the
original names or of diffusers'; its tensors are conditioning1.{0,2,4}, down.0, mid.0 and up.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from zeroconv.checkpoints.names import Topology, unet_names
from zeroconv.errors import UserError

PREFIX = "lllite_unet_"
PROJECTIONS = ("to_q", "to_k", "to_v")


def lllite_names(unet_keys: Iterable[str], attentions: Iterable[str]) -> dict[str, tuple[str, str]]:
    """A module's name in files, of either layout → the attention's name in diffusers' UNet and its
    projection.

    unet_keys: the names of the UNet's tensors. The names of the original layout come first.
    """
    original = {
        ours: theirs
        for ours, theirs in unet_names(Topology.of_diffusers(unet_keys)).items()
        if ".attentions." in ours
    }
    first: dict[str, tuple[str, str]] = {}
    second: dict[str, tuple[str, str]] = {}
    for name in attentions:
        block, _, rest = name.partition(".transformer_blocks.")
        for projection in PROJECTIONS:
            target = (name, projection)
            theirs = f"{original[block]}.transformer_blocks.{rest}.{projection}"
            first[PREFIX + theirs.replace(".", "_")] = target
            second[PREFIX + f"{name}.{projection}".replace(".", "_")] = target
    return {**first, **second}


def split_modules(state: Mapping[str, Tensor], where: object) -> dict[str, dict[str, Tensor]]:
    """A file's tensors by module. Raises UserError for a name of another form."""
    modules: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        module, _, tensor = key.partition(".")
        # the form of kohya's training: lllite_conditioning1, lllite_down, …
        tensor = tensor.removeprefix("lllite_")
        if not module.startswith(PREFIX) or not tensor:
            raise UserError(
                f"{where} has the unknown {key[:100]}; a ControlNet-LLLite has names that begin "
                f"with {PREFIX}."
            )
        modules.setdefault(module, {})[tensor] = value
    return modules
