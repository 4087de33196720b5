"""Qwen-Image as a backbone, driving diffusers' own transformer.

Residuals are tokens of the picture, added after each block. Prompts have as many states as they
have tokens, so text states have a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zeroconv.backbones.flow import video_autoencoder
from zeroconv.backbones.flow.packing import PATCH, pack, unpack
from zeroconv.backbones.flow.sentences import padded, written_rows
from zeroconv.backbones.flow.transformer import TransformerBackbone, by_block
from zeroconv.backbones.protocol import Connection, Defaults, TextStates
from zeroconv.backbones.spread import Rule, spread
from zeroconv.layers.fake import reckoning

# the words around a prompt that Qwen-Image was trained with, and how many tokens stand before it
TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, "
    "quantity, text, spatial relationships of the objects and background:<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
BEFORE = 34
MOST_TOKENS = 1024


class QwenBackbone(TransformerBackbone):
    """A frozen Qwen-Image. transformer: diffusers' QwenImageTransformer2DModel.

    vae: AutoencoderKLQwenImage, which is made for videos; a picture is one frame. text_encoders:
    the language part of Qwen2.5-VL.
    """

    family = "Qwen-Image"
    scheduler: ClassVar[dict[str, Any]] = {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "num_train_timesteps": 1000,
        "shift": 1.0,
        "shift_terminal": 0.02,
        "use_dynamic_shifting": True,
        "base_image_seq_len": 256,
        "max_image_seq_len": 8192,
        "base_shift": 0.5,
        "max_shift": 0.9,
        "time_shift_type": "exponential",
    }
    usual = Defaults(cfg=4.0)

    def __init__(self, transformer: Any, vae: nn.Module | None = None, *args: Any, **more: Any):
        super().__init__(transformer, vae, *args, **more)
        self.connections = tuple(
            Connection(f"block.{i}", transformer.inner_dim, PATCH, "tokens")
            for i in range(len(transformer.transformer_blocks))
        )

    def predict(
        self,
        z: Tensor,
        t: Tensor | int,
        text: TextStates,
        residuals: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """The velocity ε − z (N, C, H, W) of latents z (N, C, H, W).

        t (N,) or a scalar in (0, 1000]; text: hidden (N, L, D) and mask (N, L); residuals:
        (N, H·W / 4, width), one a connection, or None.
        """
        self._check_size(z)
        if residuals is not None and len(residuals) != len(self.connections):
            raise ValueError(f"{len(residuals)} residuals for {len(self.connections)} connections")
        output = self.transformer(
            hidden_states=pack(z),
            controlnet_block_samples=None if residuals is None else by_block(residuals, z),
            return_dict=False,
            **self.inputs(z, t, text),
        )[0]
        return unpack(output, (z.shape[-2], z.shape[-1]))

    def inputs(self, z: Tensor, t: Tensor | int, text: TextStates) -> dict[str, Any]:
        """What the transformer and its controls read beside the tokens of latents z."""
        mask = text.mask
        if mask is not None and not reckoning() and bool(mask.all()):
            mask = None  # attention without one is faster
        return {
            "timestep": torch.as_tensor(t, device=z.device).expand(len(z)) / 1000,
            "encoder_hidden_states": text.hidden,
            "encoder_hidden_states_mask": mask,
            "img_shapes": [(1, z.shape[-2] // PATCH, z.shape[-1] // PATCH)] * len(z),
        }

    def spread(self, residuals: Sequence[Tensor], rule: Rule | None = None) -> list[Tensor | None]:
        """Residuals of a control → one a connection, by "ceil" (diffusers)."""
        return spread(residuals, rule or "ceil", len(self.connections))

    def guided(self, without: Tensor, within: Tensor, cfg: float) -> Tensor:
        """Each token of the guided output has the length that it has with the prompt alone."""
        guided, reference = pack(without + cfg * (within - without)), pack(within)
        lengths = (torch.norm(x, dim=-1, keepdim=True) for x in (reference, guided))
        return unpack(guided * (next(lengths) / next(lengths)), tuple(within.shape[-2:]))  # type: ignore[arg-type]

    def forget(self) -> None:
        kind = type(self.transformer.pos_embed)  # its caches are of the class
        for name in ("_compute_video_freqs", "_get_device_freqs"):
            # diffusers wraps functools' cache, which is in the wrapper's closure
            wrapper = getattr(kind, name, None)
            for cell in getattr(wrapper, "__closure__", None) or ():
                if hasattr(cell.cell_contents, "cache_clear"):
                    cell.cell_contents.cache_clear()

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        self._enter("vae")
        return video_autoencoder.encode(self.vae, images, self.name)

    def latents_from_moments(
        self,
        moments: Tensor,
        generator: torch.Generator | None = None,
        sample: bool = True,
        shifted: bool = True,
    ) -> Tensor:
        return video_autoencoder.latents(self.vae, moments, generator, sample)

    @torch.no_grad()
    def decode_latents(self, z: Tensor) -> Tensor:
        self._enter("vae")
        return video_autoencoder.decode(self.vae, z, self.name, self.dtype)

    def decode_with_gradient(self, z: Tensor) -> Tensor:
        self._enter("vae")
        return video_autoencoder.decode_with_gradient(self.vae, z)

    @property
    def latent_channels(self) -> int:
        return self.transformer.config.in_channels // PATCH**2

    @property
    def latent_scale(self) -> int:
        return video_autoencoder.scale_of(self._vae) if self._vae is not None else 8

    def _embed(self, prompts: list[str], seconds: list[str]) -> TextStates:
        """The language model's last states of what stands behind the template's beginning."""
        texts = [TEMPLATE.format(prompt) for prompt in prompts]
        rows = []
        most = MOST_TOKENS + BEFORE
        for tokens in written_rows(self.tokenizers[0], texts, most, "Qwen-Image"):
            out = self.text_encoders[0](input_ids=tokens.to(self.text_encoders[0].device))
            rows.append(out.last_hidden_state[0, BEFORE:])
        hidden, mask = padded(rows)
        return TextStates(hidden, mask=mask)
