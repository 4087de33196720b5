"""A step as a module that a compiler can trace.

Keys and values of the text are inputs: a loop projects its text once, outside of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from zeroconv.generation.engines.engine import Compute
from zeroconv.generation.engines.step import Step

# a projection of the text: which layer, by its number, and which text states
Projection = tuple[int, str]


class NotTraceable(Exception):
    """A step has something that no graph has; the words say what."""


def text_layers(networks: Sequence[nn.Module]) -> list[nn.Module]:
    """The layers that make keys and values of the text, in a fixed order."""
    attentions = [
        layer
        for network in networks
        for layer in network.modules()
        if isinstance(layer, Attention) and layer.is_cross_attention
    ]
    return [part for layer in attentions for part in (layer.to_k, layer.to_v)]


@contextmanager
def _replaced(
    layers: Sequence[nn.Module], forward: Callable[[int, Tensor], Tensor]
) -> Iterator[None]:
    """Inside, layer number i gives forward(i, x)."""
    try:
        for i, layer in enumerate(layers):
            layer.forward = lambda x, i=i: forward(i, x)  # type: ignore[method-assign]
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _variant(step: Step, x: Tensor) -> str:
    for variant, states in step.texts().items():
        if states.hidden is x:
            return variant
    raise NotTraceable("a layer reads other text states than the prompt's")


def run(
    compute: Compute, step: Step, layers: Sequence[nn.Module]
) -> tuple[dict[str, Tensor], list[Projection]]:
    """The outputs of a step by name, computed by torch, and which projections of the text it
    reads.
    """
    used: dict[Projection, None] = {}

    def forward(i: int, x: Tensor) -> Tensor:
        used[i, _variant(step, x)] = None
        return type(layers[i]).forward(layers[i], x)

    with _replaced(layers, forward):
        outputs = _outputs(compute, step)
    return outputs, list(used)


def _outputs(compute: Compute, step: Step) -> dict[str, Tensor]:
    before = _before(step)
    output = compute(step)
    return {"output": output, **step.kept_since(before)}


def _before(step: Step) -> Step:
    """The step with what it holds now; computing changes that of the step itself."""
    if step.saving is None:
        return step
    saving = step.saving.copied()
    saving.deep, saving.difference = step.saving.deep, step.saving.difference
    saving.residuals = dict(step.saving.residuals)
    return replace(step, saving=saving)


class StepModule(nn.Module):
    """Tensors in the order of `names`, then the projections of the text → `outputs` in order. All
    are float32 outside; inside they have the step's own dtypes.
    """

    def __init__(
        self,
        compute: Compute,
        step: Step,
        networks: Sequence[nn.Module],
        inputs: Mapping[str, Tensor],
        projections: Sequence[Projection],
        outputs: Sequence[str],
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        # decisions about this step; those of the loop go on to the next one
        self._compute, self._step = compute, _before(step)
        self._dtypes = {name: value.dtype for name, value in inputs.items()}
        self._projections, self._outputs = list(projections), list(outputs)
        self._layers = [text_layers(networks)]  # in a list, so that they are no children

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        count = len(self._dtypes)
        pairs = zip(self._dtypes.items(), tensors, strict=False)
        named = {name: value.to(dtype) for (name, dtype), value in pairs}
        given = dict(zip(self._projections, tensors[count:], strict=True))
        step = self._step.with_inputs(named)
        dtype = step.cond.hidden.dtype

        def projected(i: int, x: Tensor) -> Tensor:
            return given[i, _variant(step, x)].to(dtype)

        with _replaced(self._layers[0], projected):
            made = _outputs(self._compute, step)
        return tuple(made[name].to(torch.float32) for name in self._outputs)


class DecodeModule(nn.Module):
    """Latents in the autoencoder's own scale → pictures in [−1, 1], both float32."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae
        self._dtype = next(vae.parameters()).dtype

    def forward(self, z: Tensor) -> Tensor:
        return self.vae.decode(z.to(self._dtype), return_dict=False)[0].to(torch.float32)
