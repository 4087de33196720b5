"""One evaluation of the networks as a function of named tensors, which a graph can compute.

A step reads latents, a timestep, text states, and of every control an embedding, scales and masks.
With `--fast` it also reads what earlier steps have kept, and keeps more. All else decides which
operations there are; `Step.structure` tells it. Two steps of one structure are one graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from zeroconv.backbones import TextStates
from zeroconv.generation.joining import grouped
from zeroconv.generation.saving import Saving
from zeroconv.generation.saving.state import Kept

Acting = list[tuple[Any, Any]]  # guides and the factors of their curves
_BESIDE = ("pooled", "time_ids", "guidance")  # of text states, beside what attention reads


@dataclass
class Step:
    """The arguments of an evaluation, as `sampling.predict` has them. saving: what `--fast` keeps,
    None without it.
    """

    backbone: Any
    z: Tensor
    t: Tensor
    cond: TextStates
    uncond: TextStates | None
    text: TextStates | None
    acting: Acting
    cfg: float | Tensor
    rescale: float
    saving: Saving | None = None

    def inputs(self) -> dict[str, Tensor]:
        """Everything it reads that is a number, by name."""
        named: dict[str, Tensor] = {}
        if self.uncond is not None:
            named["cfg"] = torch.as_tensor(self.cfg, dtype=torch.float32)
        for variant, states in self.texts().items():
            parts = {f"{variant}.{name}": getattr(states, name) for name in _BESIDE}
            named |= {name: part for name, part in parts.items() if part is not None}
        for i, (guide, _) in enumerate(self.acting):
            named[f"embedding.{i}"] = guide.embedding
            named[f"scales.{i}"] = torch.tensor([float(scale) for scale in guide.scales])
            if guide.pictures is not None:
                named[f"pictures.{i}"] = guide.pictures
            for j, mask in enumerate(guide.masks or ()):
                named[f"mask.{i}.{j}"] = mask
        return named | self.changing()

    def changing(self) -> dict[str, Tensor]:
        """Those of `inputs` that differ from step to step while the same controls act."""
        named = {"z": self.z, "t": torch.as_tensor(self.t, dtype=torch.float32).reshape(())}
        for i, (guide, factor) in enumerate(self.acting):
            named[f"factor.{i}"] = torch.tensor(float(guide.scale * factor))
        return named | self._kept()

    def texts(self) -> dict[str, TextStates]:
        """Text states by the names that inputs have: of the prompts, and of both halves."""
        return {"cond": self.cond} | ({} if self.text is None else {"text": self.text})

    def structure(self) -> tuple[Any, ...]:
        """All that decides which operations it has, beside the networks and the shapes of inputs;
        what JSON can write.
        """
        halves = "one" if self.uncond is None else "same" if self.uncond is self.cond else "two"
        numbers = {id(guide): i for i, (guide, _) in enumerate(self.acting)}
        groups = tuple(tuple(numbers[id(g)] for g, _ in group) for group in grouped(self.acting))
        uncond = tuple(bool(guide.uncond) for guide, _ in self.acting)
        kinds = tuple(_plain(getattr(guide.net, "kind", None)) for guide, _ in self.acting)
        if (saving := self.saving) is None:
            return (halves, groups, uncond, kinds, self.rescale)
        flags = (saving.guided, saving.fresh_deep, saving.fresh_branch, saving.fresh_difference)
        kept = tuple((name, tuple(value.shape)) for name, value in sorted(self._kept().items()))
        more = (flags, saving.fast.reuses_deep, saving.layers, kept)
        return (halves, groups, uncond, kinds, self.rescale, more)

    def with_inputs(self, named: Mapping[str, Tensor]) -> Step:
        """The same evaluation of other numbers; what it keeps is apart from this one's."""
        texts = {
            variant: replace(
                states, **{n: named[f"{variant}.{n}"] for n in _BESIDE if f"{variant}.{n}" in named}
            )
            for variant, states in self.texts().items()
        }
        cond = texts["cond"]
        uncond = cond if self.uncond is self.cond else self.uncond
        acting = [self._guide(i, guide, named) for i, (guide, _) in enumerate(self.acting)]
        return replace(
            self, z=named["z"], t=named["t"], cond=cond, uncond=uncond, text=texts.get("text"),
            acting=acting, cfg=named.get("cfg", self.cfg), saving=self._saving(acting, named),
        )  # fmt: skip

    def kept_since(self, before: Step) -> dict[str, Tensor]:
        """What this one, computed, keeps that `before`, the same one with its inputs alone, did not
        hold.
        """
        new, old = self.saving, before.saving
        if new is None or old is None:
            return {}
        named: dict[str, Tensor | None] = {"deep": None, "difference": None}
        for name in named:
            if getattr(new, name) is not getattr(old, name):
                named[name] = getattr(new, name)
        numbers = {id(guide): i for i, (guide, _) in enumerate(self.acting)}
        for key, kept in new.residuals.items():
            if kept is not old.residuals.get(key):
                group = "+".join(str(numbers[guide]) for guide in key)
                named |= {f"kept.{group}.{j}": r for j, r in enumerate(kept.residuals)}
        return {name: value for name, value in named.items() if value is not None}

    def keep(self, named: Mapping[str, Tensor]) -> None:
        """Hold what a graph gave, by the names of `kept_since`, for later steps."""
        if (saving := self.saving) is None:
            return
        saving.deep = named.get("deep", saving.deep)
        saving.difference = named.get("difference", saving.difference)
        groups: dict[str, list[Tensor]] = {}
        for name, value in named.items():
            if name.startswith("kept."):
                groups.setdefault(name.split(".")[1], []).append(value)
        for group, residuals in groups.items():
            members = [self.acting[int(number)] for number in group.split("+")]
            rows = max((len(r) for r in residuals if r.dim()), default=len(self.z))
            key = tuple(id(guide) for guide, _ in members)
            saving.residuals[key] = Kept(residuals, [factor for _, factor in members], rows)

    # ---------------------------------------------------------------- parts

    def _kept(self) -> dict[str, Tensor]:
        """What it uses of earlier steps. Residuals have the factors that curves have now."""
        if (saving := self.saving) is None:
            return {}
        named: dict[str, Tensor] = {}
        if not saving.fresh_deep and saving.deep is not None:
            named["deep"] = saving.deep
        if not saving.fresh_difference and saving.difference is not None:
            named["difference"] = saving.difference
        numbers = {id(guide): i for i, (guide, _) in enumerate(self.acting)}
        for key, kept in saving.residuals.items():
            if saving.fresh_branch or not all(guide in numbers for guide in key):
                continue
            factors = [self.acting[numbers[guide]][1] for guide in key]
            if factors != kept.factors and len(key) > 1:
                continue  # several hints of a Union are not linear in their factors
            ratio = 1.0 if factors == kept.factors else factors[0] / kept.factors[0]
            group = "+".join(str(numbers[guide]) for guide in key)
            residuals = kept.residuals if ratio == 1 else [r * ratio for r in kept.residuals]
            named |= {f"kept.{group}.{j}": r for j, r in enumerate(residuals)}
        return named

    def _guide(self, i: int, guide: Any, named: Mapping[str, Tensor]) -> tuple[Any, Tensor]:
        masks = guide.masks
        if masks is not None:
            masks = [named[f"mask.{i}.{j}"] for j in range(len(masks))]
        made = replace(
            guide, embedding=named[f"embedding.{i}"], scales=list(named[f"scales.{i}"].unbind()),
            scale=1.0, pictures=named.get(f"pictures.{i}"), masks=masks,
        )  # fmt: skip
        return made, named[f"factor.{i}"]

    def _saving(self, acting: Acting, named: Mapping[str, Tensor]) -> Saving | None:
        if self.saving is None:
            return None
        made = self.saving.copied()
        made.deep, made.difference = named.get("deep"), named.get("difference")
        groups = dict.fromkeys(n.split(".")[1] for n in named if n.startswith("kept."))
        for group in groups:
            count = sum(name.startswith(f"kept.{group}.") for name in named)
            residuals = [named[f"kept.{group}.{j}"] for j in range(count)]
            members = [acting[int(number)] for number in group.split("+")]
            rows = max((len(r) for r in residuals if r.dim()), default=len(self.z))
            key = tuple(id(guide) for guide, _ in members)
            made.residuals[key] = Kept(residuals, [factor for _, factor in members], rows)
        return made


def _plain(kind: Any) -> Any:
    return tuple(kind.tolist()) if isinstance(kind, Tensor) else cast(Any, kind)


def nets_of(acting: Sequence[tuple[Any, Any]]) -> list[Any]:
    """Each network of controls once, in their order."""
    networks = [network for guide, _ in acting for network in guide.net.networks()]
    return list({id(network): network for network in networks}.values())
