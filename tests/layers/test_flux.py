"""FLUX.1's blocks with less work: the same output and gradients as diffusers' own, of less
arithmetic.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers.tiny_flow import FLUX, randomised
from zeroconv.layers.checkpointing import find_parts, recompute_
from zeroconv.layers.cpu import use_cpu_layers_
from zeroconv.layers.flux import LeanDoubleBlock, LeanSingleBlock, use_flux_layers_
from zeroconv.layers.quantised import quantise_
from zeroconv.optim.split_weights import narrow_

TEXT, SIDES = 12, (4, 6)
# blocks of the base, double and single, and of the control
CASES = [(1, 2, 1, 0), (2, 2, 1, 1), (2, 0, 2, 0), (2, 3, 2, 2)]


def networks(doubles: int, singles: int, copied: int, copied_singles: int) -> nn.ModuleList:
    """A frozen base and a control that trains, all weights random."""
    from diffusers import FluxControlNetModel, FluxTransformer2DModel

    config: dict[str, Any] = {**FLUX, "num_layers": doubles, "num_single_layers": singles}
    base = randomised(FluxTransformer2DModel(**config), 0.1).requires_grad_(False)
    config |= {"num_layers": copied, "num_single_layers": copied_singles}
    return nn.ModuleList([base, randomised(FluxControlNetModel(**config), 0.1)])


def inputs(n: int) -> dict[str, Any]:
    rows, columns = (torch.arange(float(side)) for side in SIDES)
    ids = torch.cartesian_prod(torch.zeros(1), rows, columns)
    return {
        "hidden_states": torch.randn(n, len(ids), FLUX["in_channels"]),
        "controlnet_cond": torch.randn(n, len(ids), FLUX["in_channels"]),
        "encoder_hidden_states": torch.randn(n, TEXT, FLUX["joint_attention_dim"]),
        "pooled_projections": torch.randn(n, FLUX["pooled_projection_dim"]),
        "timestep": torch.rand(n),
        "img_ids": ids,
        "txt_ids": torch.zeros(TEXT, 3),
        "return_dict": False,
    }


def step(both: nn.ModuleList, given: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor], int]:
    """Output, gradients of what trains, and how many products both passes made."""
    base, control = both
    shared = {name: value for name, value in given.items() if name != "controlnet_cond"}
    # the counter does not know oneDNN's product
    linear = torch.ops.mkldnn._linear_pointwise
    counter = FlopCounterMode(display=False, custom_mapping={linear: _linear_flops})
    with counter:
        doubles, singles = control(**given)
        output = base(
            controlnet_block_samples=doubles, controlnet_single_block_samples=singles, **shared
        )[0]
        output.square().mean().backward()
    named = control.named_parameters()
    gradients = {name: p.grad for name, p in named if p.grad is not None}
    return output.detach(), gradients, counter.get_total_flops()


def _linear_flops(x: Any, weight: Any, *rest: Any, out_shape: Any = None, **options: Any) -> int:
    return 2 * x[0] * weight[0] * weight[1]


def lean(both: nn.ModuleList) -> nn.ModuleList:
    use_cpu_layers_(both)
    use_flux_layers_(*both)
    kinds = {type(m) for m in both.modules() if type(m).__name__.endswith("Block")}
    assert kinds <= {LeanDoubleBlock, LeanSingleBlock}
    return both


def far(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm().clamp_min(1e-6))


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_lean_flux_blocks_have_the_output_and_the_gradients_of_diffusers(
    case: tuple[int, int, int, int], n: int
) -> None:
    plain, given = networks(*case), inputs(n)
    fast = lean(copy.deepcopy(plain))
    wanted, theirs, _ = step(plain, given)
    made, ours, _ = step(fast, given)
    assert far(made, wanted) < 1e-5
    # queries of a text that nothing reads have a gradient of zeros there, and none here
    assert all(float(theirs[name].norm()) < 1e-7 for name in theirs.keys() - ours.keys())
    assert all(far(gradient, theirs[name]) < 1e-5 for name, gradient in ours.items())


def test_lean_flux_blocks_multiply_less() -> None:
    """Of the last block no text is made, and none of the first one's is differentiated."""
    plain, given = networks(1, 2, 1, 0), inputs(1)
    fast = lean(copy.deepcopy(plain))
    assert step(fast, given)[2] < 0.9 * step(plain, given)[2]


def test_lean_flux_blocks_give_a_text_that_is_read() -> None:
    """All blocks but the last."""
    base = lean(networks(2, 2, 1, 0))[0]
    marks = [b.picture_only for b in (*base.transformer_blocks, *base.single_transformer_blocks)]
    assert marks == [False, False, False, True]


def test_lean_flux_blocks_are_computed_again_where_memory_is_short() -> None:
    plain, given = lean(networks(2, 2, 1, 1)), inputs(2)
    again = copy.deepcopy(plain)
    parts = find_parts(again)
    assert len(parts) == 6
    for part in parts:
        recompute_(part)
    wanted, theirs, _ = step(plain, given)
    made, ours, _ = step(again, given)
    assert torch.equal(made, wanted)
    assert all(torch.equal(gradient, theirs[name]) for name, gradient in ours.items())


def test_lean_flux_blocks_read_weights_of_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `precision: bf16_weights` holds them on a processor; each layer casts for itself."""
    monkeypatch.setattr("zeroconv.optim.split_weights.LEAST", 1)
    given = inputs(2)
    narrow = networks(2, 2, 1, 1)
    narrow_(narrow)
    rounded = copy.deepcopy(narrow).float()
    made, ours, _ = step(lean(narrow), given)
    wanted, theirs, _ = step(lean(rounded), given)
    assert far(made, wanted) < 1e-6
    assert all(far(gradient.float(), theirs[name]) < 5e-3 for name, gradient in ours.items())


@pytest.mark.parametrize("bits", ["bf16", "int8"])
def test_lean_flux_blocks_read_a_base_held_in_fewer_bits(bits: Any) -> None:
    """As `training.frozen` has it."""
    plain, given = networks(2, 2, 1, 0), inputs(2)
    quantise_(plain[0], bits)
    fast = copy.deepcopy(plain)
    use_flux_layers_(*fast)
    wanted, theirs, _ = step(plain, given)
    made, ours, _ = step(fast, given)
    assert far(made, wanted) < 1e-5
    assert all(far(gradient, theirs[name]) < 1e-5 for name, gradient in ours.items())


def test_lean_flux_blocks_leave_adapters_to_diffusers() -> None:
    """Matrices beside the layers (a LoRA that trains): the same output and gradients."""
    from peft import LoraConfig

    base, given = networks(2, 2, 1, 0)[0], inputs(1)
    given.pop("controlnet_cond")
    base.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v", "proj_mlp", "proj_out"]))
    for name, parameter in base.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.1)
    results = []
    for network in (copy.deepcopy(base), lean(nn.ModuleList([copy.deepcopy(base)]))[0]):
        output = network(**given)[0]
        output.square().mean().backward()
        results.append(
            (output, {n: p.grad for n, p in network.named_parameters() if p.grad is not None})
        )
    (wanted, theirs), (made, ours) = results
    assert far(made, wanted) < 1e-5
    assert ours.keys() == theirs.keys()
    assert all(far(gradient, theirs[name]) < 1e-5 for name, gradient in ours.items())
