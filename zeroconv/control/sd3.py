"""ControlNets of Stable Diffusion 3 and 3.5: a copy of the first blocks, a Linear after each.

The copy is diffusers' SD3ControlNetModel. The hint is a latent of the base's own VAE, embedded in
patches by a layer that starts at zero (`pos_embed_input`) and added to the embedded noise.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from zeroconv.backbones import Connection, TextStates
from zeroconv.backbones.building import empty, fill
from zeroconv.backbones.locate import locate
from zeroconv.backbones.sd3 import SD3Backbone
from zeroconv.backbones.spread import Rule, spread
from zeroconv.checkpoints.bounds import check_config
from zeroconv.checkpoints.reading import read_config, read_weights
from zeroconv.checkpoints.typed import check_types
from zeroconv.control.net import Described
from zeroconv.errors import UserError
from zeroconv.files import atomic_folder, check_output
from zeroconv.jsonfile import to_json

CLASS_NAME = "SD3ControlNetModel"
WEIGHTS = "diffusion_pytorch_model"


class SD3ControlNet(nn.Module, Described):
    """A `zeroconv.control.ResidualNet` of K residuals (N, L, width), spread over the base's blocks
    by the base's rule.

    Two variants of the published ones follow from the config: `force_zeros_for_pooled_projection`,
    which reads no pooled text and hints without the VAE's shift, and `use_pos_embed` False, which
    embeds the noise by the base's own patch embedding.
    """

    def __init__(self, network: Any, backbone: SD3Backbone) -> None:
        """Around diffusers' network, for `backbone`, which is not held as a submodule. Use
        `from_backbone` or `load`.
        """
        super().__init__()
        self.network = network
        self.config: dict[str, Any] = {
            key: value for key, value in network.config.items() if not key.startswith("_")
        }
        width, patch = network.inner_dim, self.config["patch_size"]
        self.connections = tuple(
            Connection(f"residual.{i}", width, patch, "tokens")
            for i in range(len(network.controlnet_blocks))
        )
        # frozen, so not a submodule
        embed = backbone.transformer.pos_embed if network.pos_embed is None else None
        object.__setattr__(self, "_patches", embed)

    @classmethod
    def from_backbone(
        cls,
        backbone: SD3Backbone,
        *,
        blocks: int = 12,
        condition: str | None = None,
        zeros_for_pooled: bool = False,
    ) -> SD3ControlNet:
        """A new one: the first `blocks` blocks of the base copied, connections that add nothing.

        Raises UserError for more blocks than can be copied: the base's last one has no output for
        text. Warns where the last residual would be added nowhere.
        """
        from diffusers import SD3ControlNetModel

        base = backbone.transformer
        if not 1 <= blocks <= len(backbone.connections):
            raise UserError(
                f"1 to {len(backbone.connections)} blocks of {backbone.name} can be copied, not "
                f"{blocks}."
            )
        _note_unused(backbone, blocks)
        config = {key: value for key, value in base.config.items() if not key.startswith("_")}
        network: Any = SD3ControlNetModel(
            **{
                **config,
                "num_layers": blocks,
                "force_zeros_for_pooled_projection": zeros_for_pooled,
            }
        )
        for name in ("pos_embed", "time_text_embed", "context_embedder"):
            getattr(network, name).load_state_dict(getattr(base, name).state_dict())
        for copy, block in zip(network.transformer_blocks, base.transformer_blocks, strict=False):
            copy.load_state_dict(block.state_dict())
        control = cls(network, backbone)
        control.config["zeroconv"] = {"condition": condition, "base": backbone.name}
        return control.to(backbone.device, backbone.dtype)

    def forward(self, z: Tensor, hint: Tensor, t: Tensor | int, text: TextStates) -> list[Tensor]:
        """z (N, C, H, W), hint latents (N, C, H, W), t (N,) → K residuals (N, L, width)."""
        return self.forward_embedded(z, self.embed_hint(hint), t, text)

    def forward_embedded(
        self, z: Tensor, hint_embedding: Tensor, t: Tensor | int, text: TextStates
    ) -> list[Tensor]:
        """`forward`, which embeds the hint in every step."""
        t = torch.as_tensor(t, device=z.device).expand(len(z))
        if text.pooled is None:
            raise UserError("a control of Stable Diffusion 3 needs pooled text states.")
        zeros = self.config["force_zeros_for_pooled_projection"]
        pooled = torch.zeros_like(text.pooled) if zeros else text.pooled
        patches = cast(Any, self)._patches
        reads_text = self.network.context_embedder is not None
        return list(
            self.network(
                hidden_states=z if patches is None else patches(z).to(self.dtype),
                controlnet_cond=hint_embedding.to(self.dtype),
                encoder_hidden_states=text.hidden if reads_text else None,
                pooled_projections=pooled,
                timestep=t,
                return_dict=False,
            )[0]
        )

    def predict(
        self, backbone: SD3Backbone, z: Tensor, hint: Tensor, t: Tensor | int, text: TextStates
    ) -> Tensor:
        """The controlled velocity (N, C, H, W), every residual at scale 1."""
        return self.predict_embedded(backbone, z, self.embed_hint(hint), t, text)

    def predict_embedded(
        self,
        backbone: SD3Backbone,
        z: Tensor,
        embedding: Tensor,
        t: Tensor | int,
        text: TextStates,
    ) -> Tensor:
        """`predict` from `embed_hint` on."""
        residuals = self.forward_embedded(z, embedding, t, text)
        return backbone.predict(z, t, text, backbone.spread(residuals, self.spread))

    def embed_hint(self, hint: Tensor) -> Tensor:
        """The latents (N, C, H, W) as they are. Raises UserError for another number of channels."""
        wanted = self.config["in_channels"] + self.config["extra_conditioning_channels"]
        if hint.shape[1] != wanted:
            raise UserError(
                f"this control reads hints of {wanted} channels, {wanted - hint.shape[1]} more "
                "than the VAE's latents have: it was made for a mask beside the hint, which "
                "zeroconv does not give yet."
                if hint.shape[1] == self.config["in_channels"]
                else f"this control reads hints of {wanted} channels, but the hint has "
                f"{hint.shape[1]}; make it with hint_latents."
            )
        return hint

    @torch.no_grad()
    def hint_latents(
        self, backbone: SD3Backbone, hint: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Hints (N, 3, sH, sW) in [0, 1] → latents (N, C, H, W): the posterior's mean, or a sample
        of it where a generator is given, as diffusers takes one. Raises UserError for a hint with
        holes (−1), which no latent shows.
        """
        if bool((hint < 0).any()):
            raise UserError(
                "a control of Stable Diffusion 3 reads no hint with holes yet; fill the "
                "transparent parts of the hint."
            )
        moments = backbone.encode_image(hint * 2 - 1)
        shifted = not self.config["force_zeros_for_pooled_projection"]
        sample = generator is not None
        return backbone.latents_from_moments(moments, generator, sample, shifted).to(self.dtype)

    def trainable(self, frozen_copy: bool = False) -> Iterator[nn.Parameter]:
        """Hint embedding and connections, and the copy unless it stays frozen."""
        ours = ("pos_embed_input.", "controlnet_blocks.")
        for name, parameter in self.network.named_parameters():
            if name.startswith(ours) or not frozen_copy:
                yield parameter

    def networks(self) -> list[nn.Module]:
        """Itself, and the base's patch embedding where it has none."""
        patches = cast(Any, self)._patches
        return [self] if patches is None else [self, patches]

    @property
    def has_residuals(self) -> bool:
        return True

    @property
    def hint_space(self) -> Literal["pixels", "latent"]:
        return "latent"

    @property
    def spread(self) -> Rule | None:
        """None: by the base's own rule."""
        return None

    @property
    def pool(self) -> bool:
        return False

    def save(self, folder: str | os.PathLike, dtype: torch.dtype | None = None) -> None:
        """Write diffusers' folder, all or nothing, in `dtype` (None: as it is). Raises UserError
        for a folder that holds what zeroconv did not write.
        """
        check_output(folder, "folder")
        state = {
            key: value.detach().to("cpu", dtype).contiguous()
            for key, value in self.network.state_dict().items()
        }
        with atomic_folder(folder) as temporary:
            text = to_json({"_class_name": CLASS_NAME, **self.config}, indent=2, sort_keys=True)
            (temporary / "config.json").write_text(text + "\n", encoding="utf-8")
            save_file(state, temporary / f"{WEIGHTS}.safetensors", metadata={"format": "pt"})

    @classmethod
    def load(
        cls, x: str | os.PathLike, *, backbone: SD3Backbone, dtype: torch.dtype | None = None
    ) -> SD3ControlNet:
        """Load a folder of `save` or of diffusers, or a hub id, for `backbone`, with its device and
        dtype. Raises UserError, also where the two do not fit.
        """
        from diffusers import SD3ControlNetModel

        folder = locate(os.fspath(x), "ControlNet", ("config.json", f"{WEIGHTS}*"))
        config = read_config(folder)
        if config.get("_class_name") != CLASS_NAME:
            raise UserError(
                f"{folder} is a {config.get('_class_name')}, no ControlNet of {backbone.name}."
            )
        ours = config.pop("zeroconv", {})
        known = {key: value for key, value in config.items() if not key.startswith("_")}
        check_config(known, folder)
        # None where the branch reads no text, which diffusers' signature does not tell
        typed = {key: v for key, v in known.items() if (key, v) != ("joint_attention_dim", None)}
        check_types(typed, SD3ControlNetModel, folder)
        network: Any = empty(
            lambda: cast(nn.Module, SD3ControlNetModel.from_config(config)), folder
        )
        check_fit(network, backbone, folder)
        fill(network, read_weights(folder, (WEIGHTS,)), folder, dtype or backbone.dtype)
        control = cls(network, backbone)
        control.config["zeroconv"] = ours
        return control.to(backbone.device).train()

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


def _note_unused(backbone: SD3Backbone, blocks: int) -> None:
    """The base's last block takes no residual, so the last of them may reach none."""
    reached = set(spread(range(blocks), "interval", len(backbone.connections) + 1)[:-1])
    if blocks - 1 not in reached:
        warnings.warn(
            f"of {blocks} copied blocks the last is of no use: its residual would belong to the "
            f"last block of {backbone.name}, which takes none; copy another number of blocks.",
            stacklevel=3,
        )


def check_fit(network: Any, backbone: SD3Backbone, where: Path) -> None:
    """Raise UserError unless residuals, latents and text states have the base's widths."""
    theirs, base = network.config, backbone.transformer.config
    pairs = {
        "tokens": (network.inner_dim, backbone.transformer.inner_dim),
        "patches": (theirs.patch_size, base.patch_size),
        "latents": (theirs.in_channels, base.in_channels),
        "pooled text states": (theirs.pooled_projection_dim, base.pooled_projection_dim),
        "text states": (theirs.joint_attention_dim, base.joint_attention_dim),
    }
    for what, (reads, gives) in pairs.items():
        if reads != gives and reads is not None:
            raise UserError(
                f"{where} was made for another base: its {what} are {reads} wide, those of "
                f"{backbone.name} {gives}."
            )
    if len(network.controlnet_blocks) > len(backbone.transformer.transformer_blocks):
        raise UserError(
            f"{where} was made for another base: it has {len(network.controlnet_blocks)} blocks, "
            f"{backbone.name} only {len(backbone.transformer.transformer_blocks)}."
        )
