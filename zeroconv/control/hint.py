"""Hint encoders: from a picture of the condition, in pixels, to an embedding at the size of the
latents.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import cast

from torch import Tensor, nn

from zeroconv.control.connections import make_connection
from zeroconv.errors import UserError

WIDTHS = (16, 32, 96, 256)


class ReleasedHintEncoder(nn.Module):
    """The hint encoder of every published checkpoint: 3×3 convolutions with SiLU between, none
    after the last.

    hint (N, 3, 8h, 8w) in [0, 1] → (N, out_channels, h, w). Each width after the first halves the
    size. The last convolution is the first of the method's zero convolutions, Z(c; Θz1). Modules
    are named as in diffusers.
    """

    checkpointed_as_one = True  # see zeroconv.layers.checkpointing

    def __init__(
        self,
        out_channels: int,
        latent_scale: int = 8,
        widths: Sequence[int] | None = None,
        channels: int = 3,
        connection: str = "zero",
    ) -> None:
        super().__init__()
        halvings = _halvings(latent_scale)
        widths = (
            tuple(widths)
            if widths is not None
            else (WIDTHS + (WIDTHS[-1],) * halvings)[: halvings + 1]
        )
        if len(widths) != halvings + 1:
            raise UserError(
                f"a hint encoder for latents {latent_scale}× smaller than the picture needs "
                f"{halvings + 1} widths, not {len(widths)}: {list(widths)}."
            )
        self.widths = widths
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for narrow, wide in pairwise(widths):
            self.blocks.append(nn.Conv2d(narrow, narrow, 3, padding=1))
            self.blocks.append(nn.Conv2d(narrow, wide, 3, padding=1, stride=2))
        self.conv_out = make_connection(connection, widths[-1], out_channels, kernel_size=3)

    def keep_contrast_(self) -> None:
        """Initialise so that the hint reaches the last convolution at its own strength; see
        `keep_contrast_`.
        """
        keep_contrast_((self.conv_in, *self.blocks))

    def forward(self, hint: Tensor) -> Tensor:
        x = nn.functional.silu(self.conv_in(hint))  # (N, 16, 8h, 8w)
        for block in self.blocks:
            x = nn.functional.silu(block(x))  # (N, 256, h, w) at the end
        return self.conv_out(x)  # (N, C0, h, w)


def keep_contrast_(convs: Iterable[nn.Module]) -> None:
    """Initialise convolutions with SiLU between so that each keeps the variance of a unit signal.

    torch's default, which the released code trained from, passes on less than a thousandth of it:
    lines drawn on black give features that differ by 1e-4 from those of an empty hint, so that a
    new network hears its hint only after the widths between have grown.
    """
    for conv in convs:
        nn.init.normal_(
            cast(Tensor, conv.weight), std=1.68 * cast(Tensor, conv.weight)[0].numel() ** -0.5
        )
        nn.init.zeros_(cast(Tensor, conv.bias))


class PaperHintEncoder(nn.Module):
    """The hint encoder of the paper's text (section 3.2), then the zero convolution Z(c; Θz1) as a
    1×1.

    E(·) is four 4×4 convolutions with ReLU, 16, 32, 64 and 128 channels, Gaussian initialised. The
    text gives all four a stride of 2, which would end at half the latent's size; here only as many
    halve as the latents need, three for Stable Diffusion, and the last keeps the size. hint (N, 3,
    8h, 8w) in [0, 1] → (N, out_channels, h, w).
    """

    checkpointed_as_one = True  # see zeroconv.layers.checkpointing

    def __init__(
        self,
        out_channels: int,
        latent_scale: int = 8,
        widths: Sequence[int] | None = None,
        channels: int = 3,
        connection: str = "zero",
    ) -> None:
        super().__init__()
        halvings = _halvings(latent_scale)
        widths = tuple(widths) if widths is not None else (16, 32, 64, 128)
        if len(widths) < halvings:
            raise UserError(
                f"a hint encoder for latents {latent_scale}× smaller needs at least {halvings} "
                "widths."
            )
        self.widths = widths
        self.blocks = nn.ModuleList()
        for i, (narrow, wide) in enumerate(pairwise((channels, *widths))):
            if i < halvings:
                conv = nn.Conv2d(narrow, wide, 4, stride=2, padding=1)
            else:
                conv = nn.Conv2d(narrow, wide, 4)  # padded by 3 in `forward`
            # "initialized with Gaussian weights": of the size that keeps the signal's
            # through a ReLU
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(cast(Tensor, conv.bias))
            self.blocks.append(conv)
        self.conv_out = make_connection(connection, widths[-1], out_channels)

    def forward(self, hint: Tensor) -> Tensor:
        x = hint
        for block in self.blocks:
            if block.stride == (1, 1):
                x = nn.functional.pad(x, (1, 2, 1, 2))
            x = nn.functional.relu(block(x))  # (N, 128, h, w) at the end
        return self.conv_out(x)  # (N, C0, h, w)


HintEncoder = ReleasedHintEncoder | PaperHintEncoder
HINT_ENCODERS: dict[str, type[ReleasedHintEncoder] | type[PaperHintEncoder]] = {
    "released": ReleasedHintEncoder,
    "paper": PaperHintEncoder,
}


def make_hint_encoder(kind: str, out_channels: int, **options) -> HintEncoder:
    """`kind` is "released" or "paper"; raises UserError otherwise."""
    if kind not in HINT_ENCODERS:
        raise UserError(
            f"there is no hint encoder {kind!r}; choose one of {', '.join(HINT_ENCODERS)}."
        )
    return HINT_ENCODERS[kind](out_channels, **options)


def _halvings(latent_scale: int) -> int:
    halvings = latent_scale.bit_length() - 1
    if 2**halvings != latent_scale:
        raise UserError(
            f"the latents are {latent_scale}× smaller than the picture; a hint encoder needs a "
            "power of 2."
        )
    return halvings
