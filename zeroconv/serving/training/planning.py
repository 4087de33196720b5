"""The memory of a training, reckoned before it starts."""

from __future__ import annotations

from typing import Any

from zeroconv.serving.models import bytes_of
from zeroconv.training.recipes.recipe import Recipe

# float32 numbers that are kept a trained one: its gradient, its average, and the optimiser's
_BESIDE = {"adamw": 4.0, "adamw8bit": 2.5, "adafactor": 2.1, "muon": 3.0}
# bytes of Python, torch, diffusers and transformers once a base is loaded, its weights not counted
RUNTIME = 520 << 20


def plan(recipe: Recipe) -> dict[str, Any]:
    """{"memory_mb", "parts", "notes"}: weights, what training keeps beside them, and activations
    of a micro-batch, which are measured on tensors without memory. Raises UserError.
    """
    from zeroconv.backbones import load_backbone
    from zeroconv.training.assembling import make_control

    # in float32, as training has it
    backbone = load_backbone(recipe.base, **recipe.base_files.options())
    control = make_control(recipe, backbone)
    trained = sum(p.numel() * 4 for p in control.parameters())
    notes: list[str] = []
    kept = 0
    if control.has_residuals and hasattr(backbone, "unet"):
        kept = _activations(recipe, backbone, control)
    else:
        notes.append(
            f"what a {recipe.control.kind} keeps for its backward pass is not reckoned; the run "
            "takes more"
        )
    reward = _reward(recipe, backbone)
    beside = _BESIDE.get(str(recipe.training.optimizer), 4.0)
    parts = {
        "program": RUNTIME,
        "base": bytes_of(backbone),
        "trained network": trained,
        "gradients, averages, optimiser": int(trained * beside),
        "activations": kept,
    }
    if reward is not None:
        parts["reward"] = reward
    megabytes = {name: round(value / 2**20, 1) for name, value in parts.items()}
    return {"memory_mb": round(sum(megabytes.values())), "parts": megabytes, "notes": notes}


def _activations(recipe: Recipe, backbone: Any, control: Any) -> int:
    from zeroconv.backbones import TextStates
    from zeroconv.training.execution.memory import activations, chosen
    from zeroconv.training.objective import ControlledLoss

    side = (recipe.data.size or backbone.default_size) // backbone.latent_scale
    count = recipe.training.batch_size
    text = TextStates.cat([backbone.embed_text([""])] * count)
    ledger = activations(ControlledLoss(backbone, control), count, (side, side), text)
    beside = _reward(recipe, backbone) or 0
    return ledger.peak(chosen(ledger, recipe.training.checkpointing, beside))


def _reward(recipe: Recipe, backbone: Any) -> int | None:
    """Bytes of the pictures that a reward decodes at a time; None for a recipe without one."""
    from zeroconv.training.reward.reward import Reward

    if recipe.training.reward is None:
        return None
    side = (recipe.data.size or backbone.default_size) // backbone.latent_scale
    reward = Reward(recipe.training.reward, backbone, [], {})
    return reward.peak((side, side), recipe.training.batch_size)
