"""T2I-Adapter (Mou et al. 2023): features of the hint alone, added at each level of the frozen
encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from zeroconv.backbones import Connection, TextStates, UNetBackbone, UNetEncoder
from zeroconv.backbones.spread import Rule
from zeroconv.baselines.base import Baseline, Embedding
from zeroconv.errors import UserError

KINDS = ("full_adapter", "full_adapter_xl", "light_adapter")
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode "L"


class T2IAdapter(Baseline):
    """diffusers' own `T2IAdapter`: pixel unshuffle, then residual blocks, one group a level.

    It sees neither latent, step nor prompt, so it runs once a picture. As published it has no layer
    that starts at zero: a new one already changes the picture. The published training draws
    timesteps towards the noisy end; here the recipe decides, as for every other network.

    adapter_type: "full_adapter"; "light_adapter", narrow inside (published for colours);
    "full_adapter_xl", SDXL's, of squares of 16 pixels. in_channels: 3, or 1, where a picture is
    made grey. channels: of its levels; None is the base's. downscale: pixels a side of a square;
    None is the base's latent scale, twice that for SDXL's.
    """

    kind = "t2i_adapter"
    exact_start = False
    connections: tuple[Connection, ...]

    def __init__(
        self,
        backbone: UNetBackbone,
        *,
        res_blocks: int = 2,
        adapter_type: str = "full_adapter",
        in_channels: int = 3,
        channels: tuple[int, ...] | None = None,
        downscale: int | None = None,
    ) -> None:
        super().__init__()
        from diffusers import T2IAdapter as Adapter

        if adapter_type not in KINDS:
            raise UserError(
                f"there is no adapter type {adapter_type!r}; choose one of {', '.join(KINDS)}."
            )
        widths = list(backbone.unet.config.block_out_channels)
        light, large = adapter_type == "light_adapter", adapter_type == "full_adapter_xl"
        if channels is None:
            channels = tuple([*widths, widths[-1]] if large else widths[:-1] if light else widths)
        downscale = downscale or backbone.latent_scale * (2 if large else 1)
        self.in_channels, self.downscale = in_channels, downscale
        self.adapter = Adapter(
            in_channels=in_channels,
            channels=list(channels),
            num_res_blocks=res_blocks,
            downscale_factor=downscale,
            adapter_type=adapter_type,
        )
        first = downscale // backbone.latent_scale
        every = [*channels, channels[-1]] if light else list(channels)
        scales = [first * 2 ** (int(i > 1) if large else i) for i in range(len(every))]
        self.connections = tuple(
            Connection(f"level.{i}", *shape)
            for i, shape in enumerate(zip(every, scales, strict=True))
        )
        check_fit(self.connections, backbone)

    @property
    def has_features(self) -> bool:
        return True

    @property
    def spread(self) -> Rule | None:
        return None

    @property
    def hint_channels(self) -> int:
        """A grey hint is made of a picture's three channels."""
        return 3 if self.in_channels == 1 else self.in_channels

    def embed_hint(self, hint: Tensor) -> Embedding:
        """One tensor a level, (N, C_i, h / scale_i, w / scale_i). Raises UserError for a hint whose
        sides are no multiples of its squares.
        """
        height, width = hint.shape[-2:]
        if height % self.downscale or width % self.downscale:
            raise UserError(
                f"this T2I-Adapter reads squares of {self.downscale} pixels, and the picture has "
                f"{width}×{height}; ask for sides that are multiples of {self.downscale}."
            )
        if self.in_channels == 1 and hint.shape[1] == 3:
            hint = (hint * hint.new_tensor(GREY)[:, None, None]).sum(1, keepdim=True)
        return tuple(self.adapter(hint.to(self.dtype)))

    def forward_embedded(
        self, z: Tensor, hint_embedding: Embedding, t: Tensor | int, text: TextStates
    ) -> list[Tensor]:
        """The features, which depend on nothing but the hint."""
        return list(hint_embedding)

    def predict_embedded(
        self,
        backbone: UNetBackbone,
        z: Tensor,
        embedding: Embedding,
        t: Tensor | int,
        text: TextStates,
    ) -> Tensor:
        return backbone.decode(encode_with(backbone.encoder, z, t, text, embedding), t, text)


def check_fit(connections: Sequence[Connection], backbone: UNetBackbone) -> None:
    """Raise UserError unless every feature has the width and size of a level of the encoder: that
    of its blocks, or after its halving where it has no attention; the last may be the middle's.
    """
    blocks = list(backbone.encoder.down_blocks)
    widths = [block.resnets[-1].out_channels for block in blocks]
    wanted = ", ".join(map(str, widths))
    has = ", ".join(f"{c.channels}" for c in connections)
    if len(connections) > len(blocks) + 1:
        raise UserError(f"a T2I-Adapter of widths {has} is for another base than {wanted}.")
    for i, c in enumerate(connections):
        if i == len(blocks):
            scales = {2 ** (len(blocks) - 1)}
        else:
            attends = getattr(blocks[i], "has_cross_attention", False)
            halves = blocks[i].downsamplers is not None and not attends
            scales = {2**i, 2 ** (i + 1)} if halves else {2**i}
        width = widths[min(i, len(blocks) - 1)]
        if c.channels != width or c.scale not in scales:
            raise UserError(
                f"a T2I-Adapter with a feature of {c.channels} channels at 1/{c.scale} of the "
                f"latents' size is for another base: {backbone.name} has {width} channels there, "
                f"at 1/{' or 1/'.join(map(str, sorted(scales)))}."
            )


def encode_with(
    encoder: UNetEncoder, z: Tensor, t: Tensor | int, text: TextStates, features: Sequence[Tensor]
) -> list[Tensor]:
    """The frozen encoder with one feature added in each level; see `UNetEncoder.forward`."""
    return encoder(z, t, text, features=features)
