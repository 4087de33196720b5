"""The reward on held-out pictures: the distance of the hint that is read back from one-step
estimates, with fixed noise and timesteps and the empty prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zeroconv.data.batches import channels_first, of_size
from zeroconv.training.measuring.validation import Group, Validator
from zeroconv.training.reward.reward import Reward

MOST = 32  # pictures that are decoded


@torch.no_grad()
def read_back(validator: Validator, reward: Reward) -> float:
    """Mean distance of at most 32 of the validator's pictures, at timesteps spread up to t_max."""
    left, parts = MOST, list[Tensor]()
    for group in validator.groups:
        for start in range(0, min(left, len(group.z)), validator.batch_size):
            end = min(start + validator.batch_size, left)
            parts.append(_distances(validator, reward, group, slice(start, end)))
        left -= min(left, len(group.z))
    return float(torch.cat(parts).mean())


def _distances(validator: Validator, reward: Reward, group: Group, part: slice) -> Tensor:
    loss, examples = validator.loss, validator.examples
    device, rows = loss.process.device, group.rows[part]
    z, noise = group.z[part].to(device), group.noise[part].to(device)
    t = (group.t[part] * (reward.settings.t_max / 1000)).to(group.t.dtype).to(device)

    height, width = (loss.backbone.latent_scale * side for side in z.shape[-2:])
    text = examples.text.states([0] * len(z))
    text = of_size(text, height, width, examples.originals_of(rows)).to(device)
    asked = channels_first(examples.hints[rows]).to(device)
    given = asked
    if examples.hint_latents is not None:
        given = torch.from_numpy(examples.hint_latents.plain[rows]).to(device)
    kinds = examples.kinds_of(rows, validator.kinds)
    kinds = None if kinds is None else kinds.to(device)

    output = loss.output(z, noise, t, given, text, kinds=kinds)
    clean = loss.process.clean(loss.process.noised(z, noise, t), output, t)
    numbers = examples.kinds_of(rows, reward.numbers)
    assert numbers is not None
    return reward.distances(clean, asked, numbers.tolist()).cpu()
