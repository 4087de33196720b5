"""The loss: the backbone's own denoising loss, with control (paper, equation 4)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from zeroconv.backbones import Backbone, TextStates, is_split
from zeroconv.control import Net, ResidualNet
from zeroconv.data.batches import Batch, hints_to_float
from zeroconv.layers.allocator import give_back_before, has_mapped_gradients
from zeroconv.layers.cpu import keep_gradients_
from zeroconv.training.reward.reward import Reward


def predict(
    backbone: Backbone,
    control: Net | None,
    z: Tensor,
    hint: Tensor | None,
    t: Tensor,
    text: TextStates,
    give_back: bool = False,
    encoded: bool = False,
) -> Tensor:
    """The backbone's output (N, C, H, W) with control at weight 1, or without. Beside a control the
    encoder builds no graph; alone it may be what trains. `give_back`: in the backward pass, between
    decoder and copy, see `zeroconv.layers.allocator`. `encoded`: the hint is what `embed_hint`
    takes, also of a net that reads latents.
    """
    if control is None:
        return backbone.predict(z, t, text)
    assert hint is not None
    if not control.has_residuals:
        return control.predict(backbone, z, hint, t, text)
    net = cast(ResidualNet, control)
    if net.hint_space == "latent" and not encoded:
        hint = net.hint_latents(backbone, hint)
    if not is_split(backbone):
        return backbone.predict(z, t, text, backbone.spread(net(z, hint, t, text), net.spread))
    with torch.no_grad():
        skips = backbone.encode(z, t, text)
    residuals = net(z, hint, t, text)
    if give_back:
        give_back_before(residuals[-1])
    skips = add_residuals(skips, residuals)
    del residuals  # they would be kept for as long as the decoder runs
    return backbone.decode(skips, t, text)


def add_residuals(skips: Sequence[Tensor], residuals: Sequence[Tensor]) -> list[Tensor]:
    return [skip + residual for skip, residual in zip(skips, residuals, strict=True)]


def stream(device: torch.device | str, *numbers: int) -> torch.Generator:
    """A generator that is a function of numbers: the run's seed, the step, the process."""
    mixed = 0
    for number in numbers:  # 63 bits of a splitmix64 chain
        mixed = (mixed ^ number) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return torch.Generator(device).manual_seed(mixed >> 1)


# two pictures of 256 pixels: there the peak is at the end of the backward pass
FEW_POSITIONS = 2**11


class ControlledLoss(nn.Module):
    """Batch in, mean loss out: the whole of what is differentiated, so that wrappers for many
    processes see one call.

    What trains is a submodule and nothing else: the control, and the backbone's `decoder` where
    that is unlocked. The rest of the backbone is frozen and in `autocast`'s dtype or its own.
    Without a control this is the backbone's own loss, for whatever trains within it.
    """

    # whether a step is `of_drawn` of what `draw` gives, as recordings of CUDA graphs have it
    recordable = True

    def __init__(
        self,
        backbone: Backbone,
        control: Net | None,
        autocast: torch.dtype | None = None,
        timesteps: str = "uniform",
        min_snr: float | None = None,
        offset_noise: float = 0.0,
        decoder: nn.Module | None = None,
        mask_mean: str = "picture",
        reward: Reward | None = None,
    ) -> None:
        super().__init__()
        self.reward = reward  # no module: nothing of it trains
        self.mask_mean = mask_mean
        self.timesteps, self.min_snr, self.offset_noise = timesteps, min_snr, offset_noise
        self.backbone, self.control, self.autocast = backbone, control, autocast
        # modules of the backbone, named here so that processes share their gradients
        self.decoder = decoder
        # what all weights are in: then no layer of a step needs a cast
        self.weights_dtype: torch.dtype | None = None
        self.give_back = has_mapped_gradients(self)
        # where timesteps are drawn
        self.process = backbone.process.to(backbone.device if control is None else control.device)

    def keep_gradients_(self, positions: int) -> None:
        """Let large gradients have the same memory at every step; not for weights that processes
        hold in parts.

        `positions`: those of a micro-batch's latents, N · h · w. The more, the more of the peak are
        activations, on top of which the kept gradients would come, and the less of a step the pages
        take.
        """
        # under autocast torch's own layers compute
        if self.autocast is None and positions <= FEW_POSITIONS:
            keep_gradients_(self)
            self.give_back = has_mapped_gradients(self)

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """The mean loss of what is drawn from `generator`, and the reward's part of it."""
        drawn = self.draw(batch.moments, generator)
        if self.reward is not None:
            return self._rewarded(self.reward, batch, *drawn, generator)
        return self.of_drawn(*drawn, batch.hints, batch.text, batch.masks, batch.kinds)

    def _rewarded(
        self,
        reward: Reward,
        batch: Batch,
        z: Tensor,
        noise: Tensor,
        t: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """The ordinary loss plus `weight` times the mean distance of hints that are read back. One
        forward pass serves both.
        """
        t, drawn = reward.redraw(t, self.process, generator)
        more: dict[str, Any] = {} if batch.kinds is None else {"kinds": batch.kinds}
        output = self.output(z, noise, t, batch.hints, batch.text, dtype=self.weights_dtype, **more)
        errors = self._weighed(self._means(output, z, noise, t, batch.masks), t)
        ordinary = reward.ordinary(errors, drawn)

        # chosen first: a row that is left out may have no clean estimate, and so no gradient
        rows, eligible = reward.choose(t, self.process, cast(Tensor, batch.readings))
        noisy = self.process.noised(z[rows], noise[rows], t[rows])
        clean = self.process.clean(noisy, output[rows], t[rows])
        distances = reward(clean, rows, batch)
        reward.tally.add(ordinary, distances, eligible)
        if not len(distances):
            return ordinary
        return ordinary + reward.settings.weight * distances.mean()

    def draw(self, moments: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A sample of the posterior (N, C, h, w), noise for it, and timesteps (N,)."""
        z = self.backbone.latents_from_moments(moments, generator)  # (N, C, h, w)
        device = z.device
        t = self.process.draw(len(z), generator, device, self.timesteps, self._tokens(z))
        noise = torch.randn(z.shape, generator=generator, device=device)
        if self.offset_noise:
            offset = torch.randn((*z.shape[:2], 1, 1), generator=generator, device=device)
            noise = noise + self.offset_noise * offset
        return z, noise, t

    def _tokens(self, z: Tensor) -> int | None:
        """Positions a transformer attends over in a picture; None for a UNet."""
        first = self.backbone.connections[0]
        return None if first.kind == "map" else z.shape[-2] * z.shape[-1] // first.scale**2

    def of_drawn(
        self,
        z: Tensor,
        noise: Tensor,
        t: Tensor,
        hints: Tensor | None,
        text: TextStates,
        masks: Tensor | None = None,
        kinds: Tensor | None = None,
    ) -> Tensor:
        """The mean loss of a training step; no random number, nothing that waits for the device."""
        named = (("masks", masks), ("kinds", kinds))
        more: dict[str, Any] = {name: value for name, value in named if value is not None}
        errors = self.errors(z, noise, t, hints, text, dtype=self.weights_dtype, **more)
        return self._weighed(errors, t).mean()

    def _weighed(self, errors: Tensor, t: Tensor) -> Tensor:
        return errors if self.min_snr is None else errors * self.process.weights(t, self.min_snr)

    def errors(
        self,
        z: Tensor,
        noise: Tensor,
        t: Tensor,
        hints: Tensor | None,
        text: TextStates,
        control: bool = True,
        dtype: torch.dtype | None = None,
        masks: Tensor | None = None,
        kinds: Tensor | None = None,
    ) -> Tensor:
        """Mean squared error of each example (N,), float32. hints uint8 (N, 1 or 3, H, W), or
        latents (N, C, h, w) of a net that reads those. `dtype`:
        that of all weights, in which everything is computed; None: as autocast has it. masks uint8
        (N, 1, H, W) weight the error of each position, see `masked_mean`. kinds (N,): of the hints
        of a Union control.
        """
        output = self.output(z, noise, t, hints, text, control, dtype, kinds)
        return self._means(output, z, noise, t, masks)

    def _means(
        self, output: Tensor, z: Tensor, noise: Tensor, t: Tensor, masks: Tensor | None
    ) -> Tensor:
        """Mean squared error (N,) of an output."""
        squares = (output - self.process.target(z, noise, t)).square()
        return squares.mean(dim=(1, 2, 3)) if masks is None else self.masked_mean(squares, masks)

    def output(
        self,
        z: Tensor,
        noise: Tensor,
        t: Tensor,
        hints: Tensor | None,
        text: TextStates,
        control: bool = True,
        dtype: torch.dtype | None = None,
        kinds: Tensor | None = None,
    ) -> Tensor:
        """What is predicted of noised latents, (N, C, h, w) float32; see `errors`."""
        noisy = self.process.noised(z, noise, t).contiguous(memory_format=torch.channels_last)
        hint = None if hints is None else self._hint(hints)
        if dtype is not None:
            noisy, text = noisy.to(dtype), text.to(dtype=dtype)
            hint = None if hint is None else hint.to(dtype)
        casts = self.autocast is not None and dtype is None
        showing = nullcontext() if kinds is None else cast(Any, self.control).showing(kinds)
        with showing, torch.autocast(z.device.type, self.autocast or torch.bfloat16, enabled=casts):
            output = predict(
                self.backbone,
                self.control if control else None,
                noisy,
                hint,
                t,
                text,
                self.give_back,
                encoded=True,
            )
        return output.float()

    @torch.no_grad()
    def _hint(self, hints: Tensor) -> Tensor:
        """Hints as the control's `embed_hint` takes them; latents as they are."""
        if hints.is_floating_point():
            return hints
        pixels = hints_to_float(hints).contiguous(memory_format=torch.channels_last)
        control = cast(Net, self.control)
        if control is None or control.hint_space != "latent":
            return pixels
        return cast(ResidualNet, control).hint_latents(self.backbone, pixels)

    def masked_mean(self, squares: Tensor, masks: Tensor) -> Tensor:
        """(N,) of squared errors e (N, C, h, w), weighted by the masks (N, 1, H, W) uint8.

        A position's weight w is the mean of the mask over its pixels, 0 for black to 1 for white.
        `mask_mean` "picture": the mean of w·e over all positions, so a picture counts by the share
        of it that is white. "mask": Σ w·e / (C Σ w), so every picture counts alike.
        """
        height, width = squares.shape[-2:]
        weights = nn.functional.adaptive_avg_pool2d(masks.float() / 255, (height, width))
        # in place, so that the sum below keeps its order: an all-white mask changes no bit
        means = squares.mul_(weights).mean(dim=(1, 2, 3))
        return means / weights.mean(dim=(1, 2, 3)) if self.mask_mean == "mask" else means
