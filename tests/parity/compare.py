"""Our backbone and ControlNet beside diffusers' UNet2DConditionModel and ControlNetModel, on the
same weights.
"""

from __future__ import annotations

import torch

TOLERANCE = 1e-5  # of the largest value, in float32


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@torch.no_grad()
def compare(backbone, control, theirs, z, hint, t, text, scale: float = 0.7) -> dict[str, float]:
    """Relative error at every connection and at the output, control at strength `scale`."""
    added = (
        {"text_embeds": text.pooled, "time_ids": text.time_ids} if text.pooled is not None else None
    )
    down, mid = theirs(z, t, text.hidden, hint, scale, added_cond_kwargs=added, return_dict=False)
    expected = backbone.unet(
        z,
        t,
        text.hidden,
        added_cond_kwargs=added,
        down_block_additional_residuals=down,
        mid_block_additional_residual=mid,
    ).sample
    plain = backbone.unet(z, t, text.hidden, added_cond_kwargs=added).sample

    residuals = [scale * residual for residual in control(z, hint, t, text)]
    skips = [s + r for s, r in zip(backbone.encode(z, t, text), residuals, strict=True)]
    output = backbone.decode(skips, t, text)

    assert all(r.abs().max() > 1e-6 for r in residuals), "zero residuals prove nothing"
    assert relative(plain, expected) > 1e-3, "a control that changes nothing proves nothing"
    names = [c.name for c in control.connections]
    errors = {n: relative(r, d) for n, r, d in zip(names, residuals, [*down, mid], strict=True)}
    return {**errors, "output": relative(output, expected)}
