"""The encoder half of a diffusers UNet: frozen in the backbone, trainable as its deep copy."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from zeroconv.backbones.protocol import Connection, TextStates
from zeroconv.checkpoints.bounds import check_config
from zeroconv.errors import UserError

# the UNet options that this file does not drive, with the only value it accepts
_FIXED_OPTIONS = {
    "center_input_sample": False,
    "class_embed_type": None,
    "num_class_embeds": None,
    "encoder_hid_dim_type": None,
    "time_embedding_act_fn": None,
    "attention_type": "default",
    "dual_cross_attention": False,
}


class UNetEncoder(nn.Module):
    """conv_in, the down blocks and the middle block of a diffusers UNet or ControlNetModel, under
    diffusers' names.

    It shares the modules it is given: around a frozen UNet it is the backbone's encoder, a deep
    copy of it is the trainable copy. Its state dict has the keys of a diffusers ControlNet without
    the connections.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        m = cast(Any, model)
        self.conv_in = m.conv_in
        self.time_proj = m.time_proj
        self.time_embedding = m.time_embedding
        if m.config.addition_embed_type is not None:  # SDXL: pooled text and picture sizes
            self.add_time_proj = m.add_time_proj
            self.add_embedding = m.add_embedding
        self.down_blocks = m.down_blocks
        self.mid_block = m.mid_block
        self.config = controlnet_config(dict(m.config))
        self.connections = _connections(self)

    @classmethod
    def from_config(cls, config: dict) -> UNetEncoder:
        """Build it from a diffusers ControlNet config, with freshly initialised weights."""
        from diffusers import ControlNetModel

        check_config(
            {key: value for key, value in config.items() if key != "zeroconv"}, "the ControlNet"
        )
        check_supported(config)
        try:
            return cls(ControlNetModel(**controlnet_config(config)))
        except UserError:
            raise
        except Exception as error:  # diffusers raises many kinds for what makes no sense
            raise UserError(
                f"the ControlNet's config.json describes no network that can be built: {error}."
            ) from error

    def forward(
        self,
        z: Tensor,
        t: Tensor | int,
        text: TextStates,
        added: Tensor | None = None,
        features: Sequence[Tensor | None] | None = None,
    ) -> list[Tensor]:
        """z (N, C, H, W) → one tensor a connection. `added` (N, C0, H, W) goes behind conv_in;
        `features`, one a level and one for the middle or fewer, into the levels: see `_run_with`.
        """
        self._check_channels(z)
        emb = self.embed_time(z.shape[0], t, text)  # (N, 4·C0)
        x = self.conv_in(z)  # (N, C0, H, W)
        if added is not None:
            x = x + added
        return self.run_blocks(x, emb, text, features)

    def run_blocks(
        self,
        x: Tensor,
        emb: Tensor,
        text: TextStates,
        features: Sequence[Tensor | None] | None = None,
    ) -> list[Tensor]:
        """What conv_in gives (N, C0, H, W) and the step's embedding → one tensor a connection."""
        skips, given = [x], [*(features or ())]
        given += [None] * (len(self.down_blocks) + 1 - len(given))
        *inner, last = given
        for block, feature in zip(self.down_blocks, inner, strict=True):
            if feature is None:
                x, outputs = _run(block, x, emb, text)  # (N, Ci, H / 2^i, W / 2^i)
            else:
                x, outputs = _run_with(block, x, emb, text, feature)
            skips.extend(outputs)
        x = _run(self.mid_block, x, emb, text)
        return [*skips, x if last is None else x + last]

    def _check_channels(self, z: Tensor) -> None:
        """Raise UserError where a base that reads a picture is given a latent alone."""
        # a layer wrapped for low-rank updates has its weight alone
        reads = getattr(self.conv_in, "in_channels", self.conv_in.weight.shape[1])
        if z.shape[1] != reads and reads in PICTURE_CHANNELS:
            raise UserError(
                f"this base reads {reads} channels: {PICTURE_CHANNELS[reads]}; it was given "
                f"{z.shape[1]}. Give a picture with it, or use the base it was made from."
            )

    def embed_time(self, n: int, t: Tensor | int, text: TextStates) -> Tensor:
        """Sinusoids of the step through two linear layers, (N, 4·C0); SDXL adds pooled text and
        picture sizes.
        """
        weight = self.conv_in.weight
        t = torch.as_tensor(t, device=weight.device).expand(n)
        emb = self.time_embedding(self.time_proj(t).to(weight.dtype), self._guidance(text, n))
        if not hasattr(self, "add_embedding"):
            return emb
        if text.pooled is None or text.time_ids is None:
            raise UserError(
                "this backbone (SDXL) needs pooled text states and time ids: make them with "
                "embed_text."
            )
        sizes = self.add_time_proj(text.time_ids.flatten()).reshape(n, -1)
        return emb + self.add_embedding(torch.cat([text.pooled, sizes], dim=-1).to(emb.dtype))

    @property
    def guidance_channels(self) -> int | None:
        """Numbers that a distilled model (LCM) reads its guidance scale from; None for all
        others.
        """
        layer = getattr(self.time_embedding, "cond_proj", None)
        return None if layer is None else layer.in_features

    def _guidance(self, text: TextStates, n: int) -> Tensor | None:
        """The guidance scale's embedding (N, D), where the model reads one and it is given."""
        width = self.guidance_channels
        if width is None or text.guidance is None:
            return None
        weight = self.conv_in.weight
        return guidance_embedding(text.guidance.to(weight.device).expand(n), width).to(weight.dtype)


def guidance_embedding(scale: Tensor, width: int) -> Tensor:
    """Guidance scales (N,) → sinusoids (N, width) of 1000 · (scale − 1), as diffusers gives them
    to LCM models.
    """
    half = width // 2
    frequencies = torch.exp(
        torch.arange(half, dtype=torch.float32, device=scale.device)
        * -(torch.log(torch.tensor(10000.0)).item() / (half - 1))
    )
    angles = 1000.0 * (scale.float() - 1)[:, None] * frequencies
    embedding = torch.cat([angles.sin(), angles.cos()], dim=1)
    return nn.functional.pad(embedding, (0, width % 2))


def _run(block: nn.Module, x: Tensor, emb: Tensor, text: TextStates) -> Any:
    if getattr(block, "has_cross_attention", False):
        return block(x, emb, encoder_hidden_states=text.hidden)
    return block(x, emb)


def _run_with(block: Any, x: Tensor, emb: Tensor, text: TextStates, feature: Tensor) -> Any:
    """A level to whose last block's output a feature of the same size is added, before the halving;
    the sum goes on to the next level and to the decoder. A feature of half the size is added after
    the halving.

    So does diffusers' UNet, which adds before the halving in levels with cross-attention and after
    it in others. Its adapters for Stable Diffusion have features of the level's own size, those for
    SDXL, whose first level has no attention, one of half the size there.
    """
    if getattr(block, "has_cross_attention", False):
        return block(x, emb, encoder_hidden_states=text.hidden, additional_residuals=feature)
    outputs = []
    for resnet in block.resnets:
        x = resnet(x, emb)
        outputs.append(x)
    before = feature.shape[-2:] == x.shape[-2:]
    if before:
        outputs[-1] = x = x + feature
    for halving in block.downsamplers or ():
        x = halving(x)
        outputs.append(x)
    if not before:
        outputs[-1] = x = x + feature
    return x, tuple(outputs)


def _connections(encoder: UNetEncoder) -> tuple[Connection, ...]:
    """The points of REFERENCE table: conv_in, every block of a level, every halving, the middle."""
    places, scale = [(encoder.conv_in.out_channels, 1)], 1
    for block in encoder.down_blocks:
        places += [(resnet.out_channels, scale) for resnet in block.resnets]
        for halving in block.downsamplers or ():
            scale *= 2
            places.append((halving.out_channels, scale))
    skips = [Connection(f"down.{i}", *position) for i, position in enumerate(places)]
    return (*skips, Connection("mid", *places[-1]))


def controlnet_config(config: dict) -> dict:
    """The part of a UNet's or a ControlNet's config that diffusers' ControlNetModel takes."""
    from diffusers import ControlNetModel

    known = inspect.signature(ControlNetModel.__init__).parameters
    return {key: value for key, value in config.items() if key in known and not key.startswith("_")}


# channels that a UNet reads, the latent's own 4 among them → what such a base is
_MORE_CHANNELS = {
    5: "made from depth maps (a depth base)",
    7: "made for enlarging pictures",
}
# those that load: what they read beside the latent is given by who runs them
PICTURE_CHANNELS = {
    8: "the latent and the latent of a picture to edit (InstructPix2Pix)",
    9: "the latent, a mask and the latent of the masked picture (inpainting)",
}


def check_latents(config: Mapping[str, Any], where: object) -> None:
    """Raise UserError for a base that reads more than a noisy latent, and no picture with it."""
    reads, gives = config.get("in_channels", 4), config.get("out_channels", 4)
    if reads == gives or not isinstance(reads, int) or (gives == 4 and reads in PICTURE_CHANNELS):
        return
    made = _MORE_CHANNELS.get(reads, "made for something else than pictures from noise alone")
    raise UserError(
        f"{where} reads latents of {reads} channels and gives {gives}: it is {made}, which "
        "zeroconv does not run yet; give the base it was made from."
    )


def check_supported(config: dict) -> None:
    """Raise UserError where a UNet's config asks for something this project does not drive."""
    wrong = [k for k, fixed in _FIXED_OPTIONS.items() if config.get(k, fixed) != fixed]
    if config.get("addition_embed_type") not in (None, "text_time"):
        wrong.append("addition_embed_type")
    if config.get("mid_block_type", "") is None:
        wrong.append("mid_block_type")
    if wrong:
        raise UserError(
            f"this UNet sets {', '.join(wrong)}, which zeroconv does not support; use SD 1.x, 2.x "
            "or XL."
        )
