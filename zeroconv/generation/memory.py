"""What pictures take of the device's memory, reckoned before there are any weights.

Each part of a base runs once on fake tensors, which have shapes and no memory, and every tensor is
counted while it lives. Not seen: the driver's own share (0.3 to 0.6 GB on a graphics card),
workspaces of kernels, and what an allocator rounds up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from zeroconv.backbones import TextStates, UNetBackbone, tiling
from zeroconv.backbones.autoencoder import in_chunks
from zeroconv.backbones.loading.empty import load_empty
from zeroconv.backbones.offload import check_offload
from zeroconv.control import ControlNet
from zeroconv.control.compose import add_up
from zeroconv.errors import UserError
from zeroconv.layers.checkpointing import find_parts
from zeroconv.layers.fake import held_by, make_fake_
from zeroconv.layers.live_bytes import LiveBytes
from zeroconv.layers.quantised import Bits, check_quantise, quantise_

MOST_CONTROLS = 32


@dataclass(frozen=True)
class Stage:
    """Bytes: of the weights it needs, of the largest of them that come together with offload by
    group, and of what it computes at its highest.
    """

    weights: int
    group: int
    computed: int


@dataclass(frozen=True)
class Need:
    """The stages of a picture, and how weights are moved between them."""

    text: Stage
    unet: Stage
    vae: Stage
    offload: str
    size: tuple[int, int]  # height, width in pixels

    @property
    def total(self) -> int:
        """Bytes at the highest."""
        stages = (self.text, self.unet, self.vae)
        if self.offload == "none":
            return sum(s.weights for s in stages) + max(s.computed for s in stages)
        if self.offload == "model":
            return max(s.weights + s.computed for s in stages)
        return max(s.group + s.computed for s in stages)

    def as_dict(self) -> dict[str, float]:
        """GB of 10⁹ bytes."""
        parts = {"text": self.text, "unet and controls": self.unet, "vae": self.vae}
        numbers = {f"{name}: weights": stage.weights for name, stage in parts.items()}
        numbers |= {f"{name}: computed": stage.computed for name, stage in parts.items()}
        return {
            name: round(value / 1e9, 3) for name, value in {**numbers, "GB": self.total}.items()
        }


def reckon(
    base: str,
    size: tuple[int, int] | None = None,
    controls: int = 0,
    dtype: torch.dtype = torch.float32,
    offload: str = "none",
    quantise: str | None = None,
    vae_tiling: bool = False,
    pictures: int = 1,
    guided: bool = True,
) -> Need:
    """What `generate` takes for pictures of `size` (height, width) in pixels.

    controls: ControlNets of the released kind. pictures: that are made at once. guided: with
    classifier-free guidance, so that each picture goes through the UNet twice. Raises UserError for
    words and sizes that cannot be.
    """
    check_offload(offload)
    check_quantise(quantise)
    if not 0 <= controls <= MOST_CONTROLS:
        raise UserError(f"{controls} controls cannot be reckoned with; give 0 to {MOST_CONTROLS}.")
    backbone = load_empty(base)
    height, width = size or (backbone.default_size, backbone.default_size)
    scale = backbone.latent_scale
    if height % scale or width % scale or not height or not width:
        raise UserError(
            f"pictures of {width}×{height} cannot be made; give sides that are multiples of "
            f"{scale}."
        )
    with torch.device("meta"):
        nets = [ControlNet.from_backbone(backbone) for _ in range(controls)]
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    _prepare(backbone, nets, mode, dtype, quantise)
    latent = (height // scale, width // scale)

    with torch.no_grad():
        return Need(
            _text(backbone, mode, pictures * (1 + guided)),
            _unet(backbone, nets, mode, pictures, guided, latent),
            _vae(backbone, mode, pictures, latent, vae_tiling),
            offload,
            (height, width),
        )


def _prepare(
    backbone: UNetBackbone,
    nets: Sequence[ControlNet],
    mode: FakeTensorMode,
    dtype: torch.dtype,
    quantise: str | None,
) -> None:
    """Weights as `load_backbone` would have them."""
    for net in nets:
        net.requires_grad_(False)
    if quantise is not None:
        for network in (backbone.denoiser, *(child for net in nets for child in net.children())):
            quantise_(network, cast(Bits, quantise))
    upcast = dtype == torch.float16 and backbone.is_xl and backbone.vae.config.force_upcast
    for module in (backbone.denoiser, *backbone.text_encoders, *nets):
        make_fake_(module, mode, dtype)
    make_fake_(backbone.vae, mode, torch.float32 if upcast else dtype)


def _most(mode: FakeTensorMode, call: Callable[[], Any]) -> int:
    """The most that is alive at once of what a call computes."""
    with mode, LiveBytes() as live:
        call()
    return live.most


def _text(backbone: UNetBackbone, mode: FakeTensorMode, rows: int) -> Stage:
    def run() -> None:
        for encoder in cast(list[Any], backbone.text_encoders):
            length = encoder.config.max_position_embeddings
            encoder(torch.zeros(rows, length, dtype=torch.long), output_hidden_states=True)

    weights = sum(map(held_by, backbone.text_encoders))
    return Stage(weights, weights, _most(mode, run))


def _states(backbone: UNetBackbone, rows: int) -> TextStates:
    """Text states of no particular content."""
    encoders = cast(list[Any], backbone.text_encoders)
    length = encoders[0].config.max_position_embeddings
    width = sum(encoder.config.hidden_size for encoder in encoders)
    states = TextStates(torch.empty(rows, length, width, dtype=backbone.dtype))
    if backbone.is_xl:
        projected = encoders[-1].config.projection_dim
        states.pooled = torch.empty(rows, projected, dtype=backbone.dtype)
        states.time_ids = torch.empty(rows, 6, dtype=backbone.dtype)
    return states


def _unet(
    backbone: UNetBackbone,
    nets: Sequence[ControlNet],
    mode: FakeTensorMode,
    pictures: int,
    guided: bool,
    latent: tuple[int, int],
) -> Stage:
    """One step, as `sampling.predict` has it where the controls act on both halves."""
    rows = pictures * (1 + guided)

    def run() -> None:
        z = torch.empty(pictures, backbone.latent_channels, *latent)  # float32, kept by the loop
        x = torch.cat([z] * (1 + guided)).to(backbone.dtype)
        hint = torch.empty(
            pictures, 3, *(side * backbone.latent_scale for side in latent), dtype=backbone.dtype
        )
        embedded = [net.embed_hint(hint) for net in nets]
        del hint
        text, t = _states(backbone, rows), torch.zeros(rows, dtype=torch.long)
        skips: list[Tensor] = backbone.encode(x, t, text)
        for net, one in zip(nets, embedded, strict=True):
            again = one.repeat(1 + guided, 1, 1, 1)
            skips = cast(list[Tensor], add_up(skips, net.forward_embedded(x, again, t, text)))
        backbone.decode(skips, t, text)

    networks: list[nn.Module] = [backbone.denoiser, *nets]
    weights = sum(map(held_by, networks))
    blocks = [held_by(block) for block in find_parts(networks)]
    return Stage(weights, weights - sum(blocks) + max(blocks, default=0), _most(mode, run))


def _vae(
    backbone: UNetBackbone,
    mode: FakeTensorMode,
    pictures: int,
    latent: tuple[int, int],
    tiled: bool,
) -> Stage:
    vae, scale = backbone.vae, backbone.latent_scale
    dtype = next(vae.parameters()).dtype

    def latents(rows: int, sides: Sequence[int]) -> Tensor:
        return torch.empty(rows, backbone.latent_channels, *sides, dtype=dtype)

    weights = held_by(vae)
    if not tiled or tiling.is_one(vae, *latent):

        def run() -> None:  # as `autoencoder.decode`, but for the look at the numbers
            z = latents(pictures, latent)
            shape = (pictures, 3, *(side * scale for side in latent))
            shown = [vae.decode(part).sample.float() for part in in_chunks(z, shape)]
            (torch.cat(shown) / 2 + 0.5).clamp(0, 1)

        return Stage(weights, weights, _most(mode, run))

    def middle() -> Tensor:
        z = latents(1, latent)
        if vae.post_quant_conv is not None:
            z = vae.post_quant_conv(z)
        return vae.decoder.mid_block(vae.decoder.conv_in(z))

    tile = [min(side, tiling.TILE + 2 * tiling.MARGIN) for side in latent]
    at_once = _most(mode, lambda: vae.decode(latents(1, tile)))
    # beside a tile: all of the middle block's output, and the pictures
    channels = vae.config.block_out_channels[-1]
    middle_out = channels * latent[0] * latent[1] * dtype.itemsize
    image = 3 * latent[0] * latent[1] * scale**2 * (dtype.itemsize + 4 * pictures)
    return Stage(weights, weights, max(_most(mode, middle), at_once + middle_out + image))
