"""A hypernetwork: the hint decides the weights of the frozen model's keys and values."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from zeroconv.backbones import TextStates, UNetBackbone
from zeroconv.baselines.base import Baseline, Embedding, adopt_trained, share
from zeroconv.control import ReleasedHintEncoder
from zeroconv.errors import UserError

GRID = 4  # the hint is seen as GRID × GRID cells


class Modulated(nn.Module):
    """A frozen projection whose weight is another for every picture: W + U diag(s) D, with s (N,
    rank) from outside.
    """

    def __init__(self, frozen: nn.Linear, rank: int) -> None:
        super().__init__()
        self.frozen = frozen
        self.down = nn.Linear(frozen.in_features, rank, bias=False)
        self.up = nn.Linear(rank, frozen.out_features, bias=False)
        nn.init.normal_(self.down.weight, std=frozen.in_features**-0.5)
        nn.init.normal_(self.up.weight, std=rank**-0.5)
        self.scales: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        assert self.scales is not None, "the hypernetwork sets the scales before the UNet runs"
        return self.frozen(x) + self.up(self.down(x) * self.scales[:, None])  # (N, L, out)


class Hypernetwork(Baseline):
    """After HyperNetworks (Ha et al. 2017), in the place where those for Stable Diffusion act
    (Kurumuz 2022): the keys and values of every attention. They change style there, one network for
    all pictures; here the weights are a function of the hint.

    The hint goes through a hint encoder and the means of 4×4 cells into one vector; two linear
    layers turn it into `rank` numbers a projection, which scale a trained low-rank update. The last
    layer starts at zero, so training starts from the frozen model. Weights are the same at all
    places of a picture: what is where can only be said roundabout.
    """

    kind = "hypernetwork"
    _modulated: UNetBackbone
    _layers: list[Modulated]

    def __init__(
        self,
        backbone: UNetBackbone,
        *,
        rank: int = 8,
        hidden: int = 256,
        hint_widths: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        if rank < 1 or hidden < 1:
            raise UserError(f"rank is {rank} and hidden {hidden}; both must be at least 1.")
        unet = cast(nn.Module, share(backbone.unet))
        self._hide(
            "_modulated",
            UNetBackbone(unet, scheduler_config=backbone.scheduler_config, name=backbone.name),
        )
        self._hide("_layers", modulate(unet, rank))
        adopt_trained(self, unet)
        self.hint_encoder = ReleasedHintEncoder(
            32, backbone.latent_scale, hint_widths, connection="gaussian"
        )
        self.hint_encoder.keep_contrast_()
        self.head = nn.Sequential(
            nn.Linear(32 * GRID**2, hidden), nn.SiLU(), nn.Linear(hidden, rank * len(self._layers))
        )
        for parameter in self.head[-1].parameters():
            nn.init.zeros_(parameter)

    def embed_hint(self, hint: Tensor) -> Embedding:
        """All scales, (N, layers · rank)."""
        cells = nn.functional.adaptive_avg_pool2d(self.hint_encoder(hint), GRID)  # (N, 32, 4, 4)
        return (self.head(cells.flatten(1)),)

    def predict_embedded(
        self,
        backbone: UNetBackbone,
        z: Tensor,
        embedding: Embedding,
        t: Tensor | int,
        text: TextStates,
    ) -> Tensor:
        for layer, scales in zip(
            self._layers, embedding[0].chunk(len(self._layers), dim=1), strict=True
        ):
            layer.scales = scales
        try:
            return self._modulated.decode(self._modulated.encode(z, t, text), t, text)
        finally:
            for layer in self._layers:
                layer.scales = None


def modulate(unet: nn.Module, rank: int) -> list[Modulated]:
    """Put a `Modulated` in place of every key and value projection; these, in order."""
    projections = [
        (name, m) for name, m in unet.named_modules() if name.endswith((".to_k", ".to_v"))
    ]
    layers = []
    for name, projection in projections:
        parent, _, last = name.rpartition(".")
        layers.append(Modulated(cast(nn.Linear, projection), rank))
        setattr(unet.get_submodule(parent), last, layers[-1])
    if not layers:
        raise UserError(
            "this backbone has no attention, so a hypernetwork has no keys and values to change."
        )
    return layers
