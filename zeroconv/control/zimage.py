"""ControlNets of Z-Image: a chain of blocks beside chosen layers of the base (in the way of VACE).

The network is diffusers' ZImageControlNetModel. It borrows the base's embeddings and refiners, so
it holds its blocks and the hint's embedding alone. The hint is a latent of the base's own VAE;
later versions (2.0, 2.1) read a mask and the latent of a picture with a hole beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zeroconv.backbones import Connection, TextStates
from zeroconv.backbones.flow.transformer import TransformerBackbone
from zeroconv.backbones.flow.zimage import ZImageBackbone
from zeroconv.backbones.spread import Rule
from zeroconv.control.transformer import TransformerControlNet, check_widths, plain_weights
from zeroconv.errors import UserError
from zeroconv.layers.fake import reckoning

BORROWED = (
    "t_scale",
    "t_embedder",
    "all_x_embedder",
    "cap_embedder",
    "rope_embedder",
    "noise_refiner",
    "context_refiner",
    "x_pad_token",
    "cap_pad_token",
)
_JOINED = (".before_proj.", ".after_proj.")


class ZImageControlNet(TransformerControlNet):
    """K residuals (N, tokens, width) of the whole sequence, picture and caption: one for each layer
    of `control_layers_places`.
    """

    class_name = "ZImageControlNetModel"
    family = "Z-Image"
    joined = ("control_all_x_embedder.",)

    @classmethod
    def from_backbone(
        cls,
        backbone: ZImageBackbone,
        *,
        layers: Sequence[int] | None = None,
        condition: str | None = None,
        mask: bool = False,
    ) -> ZImageControlNet:
        """A new one: blocks that are copies of the base's layers, connections that add nothing.

        layers: beside which of the base's layers, 0 and others in rising order; by default every
        fifth, and each has a block of the noise refiner's as well. mask: it reads a mask and a
        masked picture beside its hint. Raises UserError for layers that the base has not.
        """
        base = backbone.transformer
        count, config = len(base.layers), base.config
        chosen = list(range(0, count, 5)) if layers is None else list(layers)
        if chosen != sorted(set(chosen)) or not chosen or chosen[0] != 0 or chosen[-1] >= count:
            raise UserError(
                f"layers are {chosen}; give rising numbers from 0 on, below the {count} layers of "
                f"{backbone.name}."
            )
        kept = {name: config[name] for name in ("all_patch_size", "all_f_patch_size", "dim")}
        kept |= {name: config[name] for name in ("n_refiner_layers", "n_heads", "n_kv_heads")}
        channels = backbone.latent_channels
        network = cls._network(
            control_layers_places=chosen,
            control_refiner_layers_places=list(range(config["n_refiner_layers"])),
            control_in_dim=2 * channels + 1 if mask else channels,
            add_control_noise_refiner="control_noise_refiner",
            norm_eps=config["norm_eps"],
            qk_norm=config["qk_norm"],
            **kept,
        )
        _copy_blocks_(network, base, chosen)
        return cls._new(network, backbone, condition)

    def __init__(self, network: Any, backbone: ZImageBackbone) -> None:
        super().__init__(network, backbone)
        network.gradient_checkpointing = False  # diffusers' own class forgets it, and reads it
        base = backbone.transformer
        for name in BORROWED:  # not as modules of the network, which would train and be saved
            network.__dict__[name] = getattr(base, name)
        # the network writes the base's tokens into what these give, which a layer of its own
        # gradient forbids, and autocast's other dtype too
        # asked for at every call: a base held in fewer bits has another layer there
        network.__dict__["all_x_embedder"] = {
            key: _copied(base, base.all_x_embedder, key) for key in base.all_x_embedder
        }
        network.__dict__["cap_embedder"] = _copied(base, base, "cap_embedder")
        for module in network.control_all_x_embedder.values():
            module.register_forward_hook(
                lambda module, given, out: out.clone().to(base.x_pad_token.dtype)
            )

    def _connections(self) -> tuple[Connection, ...]:
        places = self.config["control_layers_places"]
        width = self.config["dim"]
        return tuple(
            Connection(f"residual.{i}", width, 2, "tokens", "sequence") for i in range(len(places))
        )

    @property
    def spread(self) -> Rule | None:
        return {place: i for i, place in enumerate(self.config["control_layers_places"])}

    def forward_embedded(
        self, z: Tensor, hint_embedding: Tensor, t: Tensor | int, text: TextStates
    ) -> list[Tensor]:
        base: ZImageBackbone = self._base
        made = self.network(
            base.pictures(z),
            base.time(t, z),
            base.captions(text),
            base.pictures(hint_embedding.to(z.dtype)),
        )
        return [made[place] for place in self.config["control_layers_places"]]

    @torch.no_grad()
    def hint_latents(
        self,
        backbone: TransformerBackbone,
        hint: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Hints (N, 3, sH, sW) in [0, 1] → latents (N, C, H, W): the posterior's mean.

        One with a mask reads 2C + 1 channels: the hint, a mask that is 0 in the hole, and the
        picture with grey in its hole. They come of hints (N, 6, sH, sW): the hint, and a picture
        with −1 in its hole. Of a hint alone the mask and the picture are zeros, as diffusers has
        it; of three channels with holes, the hint is a picture and there is no other.
        """
        latents = backbone.latent_channels
        if reckoning():
            return self._shaped(backbone, hint)
        if self.config["control_in_dim"] == latents:
            return super().hint_latents(backbone, hint, generator)
        shown, picture = (hint[:, :3], hint[:, 3:]) if hint.shape[1] == 6 else (hint, None)
        if picture is None and bool((hint < 0).any()):
            shown, picture = None, hint  # type: ignore[assignment]
        size = (hint.shape[-2] // backbone.latent_scale, hint.shape[-1] // backbone.latent_scale)
        out = hint.new_zeros(len(hint), 2 * latents + 1, *size)
        if shown is not None:
            out[:, :latents] = self._encoded(backbone, shown.clamp_min(0), generator)
        if picture is not None:
            hole = picture[:, :1] < 0
            out[:, latents : latents + 1] = nn.functional.interpolate((~hole).to(out), size)
            grey = torch.where(hole, 0.5, picture)
            out[:, latents + 1 :] = self._encoded(backbone, grey, generator)
        return out.to(self.dtype)

    @property
    def mask_channels(self) -> int:
        return int(self.config["control_in_dim"]) - self._base.latent_channels

    @property
    def hint_channels(self) -> int:
        """6 of one that reads a picture with a hole beside its hint; 3 will do for it too."""
        return 3 if self.config["control_in_dim"] == self._base.latent_channels else 6

    def trainable(self, frozen_copy: bool = False) -> Iterator[nn.Parameter]:
        """Hint embedding and connections, and the copy unless it stays frozen."""
        for name, parameter in self.network.named_parameters():
            part = name.startswith(self.joined) or any(word in name for word in _JOINED)
            if part or not frozen_copy:
                yield parameter

    def networks(self) -> list[nn.Module]:
        """Itself and the base, of which it borrows."""
        return [self, self._base.transformer]

    @classmethod
    def check_fit(cls, network: Any, backbone: ZImageBackbone, where: object) -> None:
        theirs, base = network.config, backbone.transformer
        channels = backbone.latent_channels
        if theirs.control_in_dim not in (channels, 2 * channels + 1):
            raise UserError(
                f"{where} was made for another base: it reads hints of {theirs.control_in_dim} "
                f"channels, and {backbone.name} has latents of {channels}."
            )
        check_widths(where, backbone.name, {"tokens": (theirs.dim, base.dim)})
        places = theirs.control_layers_places
        if max(places) >= len(base.layers):
            raise UserError(
                f"{where} was made for another base: it adds to layer {max(places)}, and "
                f"{backbone.name} has {len(base.layers)} layers."
            )


def _copied(base: Any, parent: nn.Module, name: str) -> Callable[[Tensor], Tensor]:
    """What a module gives, in a memory of its own and the dtype of the tokens that fill up."""
    return lambda x: parent.get_submodule(name)(x).clone().to(base.x_pad_token.dtype)


def _copy_blocks_(network: Any, base: Any, places: Sequence[int]) -> None:
    """The base's layers and noise refiner as the chain's blocks; what joins them stays zero."""
    pairs = [*zip(network.control_layers, (base.layers[i] for i in places), strict=True)]
    pairs += zip(network.control_noise_refiner, base.noise_refiner, strict=True)
    for ours, theirs in pairs:
        for name, part in theirs.named_children():
            getattr(ours, name).load_state_dict(plain_weights(part))
