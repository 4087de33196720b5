"""How the trainable copy joins the frozen model: zero convolutions, and the paper's two ablations
(figure 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from zeroconv.backbones import Connection, TextStates
from zeroconv.errors import UserError

CONNECTIONS = ("zero", "gaussian", "lite")


def make_connection(
    kind: str, channels: int, out_channels: int | None = None, kernel_size: int = 1
) -> nn.Conv2d:
    """One convolution between the copy and the frozen model; as many channels out as in unless said
    otherwise.

    "zero": weight and bias start at zero (paper, section 3.1), so that training starts from the
    frozen model itself. "gaussian": ablation (a) of figure 8. The paper gives no size; here the
    standard deviation is 1/√(fan in), which passes a signal on at its own strength as an ordinary
    layer would, and the bias is zero.
    """
    conv = nn.Conv2d(channels, out_channels or channels, kernel_size, padding=kernel_size // 2)
    nn.init.zeros_(cast(Tensor, conv.bias))
    if kind == "zero":
        nn.init.zeros_(conv.weight)
    elif kind == "gaussian":
        nn.init.normal_(conv.weight, std=(channels * kernel_size**2) ** -0.5)
    else:
        raise UserError(f"there is no connection {kind!r}; choose one of {', '.join(CONNECTIONS)}.")
    return conv


class LiteEncoder(nn.Module):
    """ControlNet-lite, ablation (b) of figure 8: one convolution in place of each copied block.

    A chain that starts at the hint embedding: at each connection a 3×3 convolution (of stride 2
    where the size halves) and a SiLU, whose output goes through that connection's zero convolution.
    It sees neither the latent, nor the step, nor the prompt. It is called like the copy it
    replaces: added (N, C0, h, w) → one tensor a connection.
    """

    def __init__(self, connections: Sequence[Connection], config: dict) -> None:
        super().__init__()
        self.connections, self.config = tuple(connections), dict(config)
        self.convs = nn.ModuleList()
        channels, scale = connections[0].channels, 1
        for connection in connections:
            conv = nn.Conv2d(
                channels, connection.channels, 3, padding=1, stride=connection.scale // scale
            )
            # 1.68 keeps the variance of a unit signal through a SiLU; torch's own
            # initialisation would shrink the hint to a ten-thousandth on its way to
            # the middle
            nn.init.normal_(conv.weight, std=1.68 * (9 * channels) ** -0.5)
            self.convs.append(conv)
            channels, scale = connection.channels, connection.scale

    def forward(self, z: Tensor, t: Tensor | int, text: TextStates, added: Tensor) -> list[Tensor]:
        x, states = added, []
        for conv in self.convs:
            x = nn.functional.silu(conv(x))  # (N, C_i, h / scale_i, w / scale_i)
            states.append(x)
        return states
