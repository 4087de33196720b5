"""IP-Adapter (Ye et al. 2023): a picture as a prompt, by an attention of its own beside that over
the text.

Section 3.2.2, equation 5: Z = softmax(Q Kᵀ / √d) V + λ softmax(Q K′ᵀ / √d) V′, with K′ and V′ of
the picture's tokens and λ the scale.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from zeroconv.adapters.image_encoder import ImageEncoder
from zeroconv.backbones import Backbone, UNetBackbone
from zeroconv.backbones.loading.building import converted, empty, fill
from zeroconv.backbones.loading.locate import locate
from zeroconv.checkpoints.controls.ip_adapter import IPAdapterFile, read_ip_adapter
from zeroconv.checkpoints.identify import identify, refuse_other_kind
from zeroconv.checkpoints.strict import check_strict
from zeroconv.errors import UserError
from zeroconv.layers.attention import Call, Change, Switch, attentions

FOLDER = "image_encoder"  # where the published files have their encoder
HEAD = 64  # channels of a head of the resampler


class IPAdapter(nn.Module):
    """The base, plus, plus-face and full-face kinds, for Stable Diffusion 1.x and XL.

    form: "base", "plus" or "full"; see `IPAdapterFile`.
    """

    def __init__(self, file: IPAdapterFile, backbone: UNetBackbone, encoder: ImageEncoder) -> None:
        super().__init__()
        self.form, self.name = file.form, str(file.where)
        _check_base(file, backbone)
        _check_encoder(file, encoder)
        object.__setattr__(self, "encoder", encoder)  # frozen, and shared by adapters
        dtype = backbone.dtype
        self.projection = fill(_projection(file), file.projection, file.where, dtype)
        state, shapes = converted(file.attention, dtype, file.where), _shapes(backbone, file.width)
        check_strict(shapes, state, file.where)
        self.names = [name for name in attentions(backbone.unet) if name.endswith("attn2")]
        weights = [state[key] for key in shapes]
        self.keys = nn.ParameterList(weights[::2])
        self.values = nn.ParameterList(weights[1::2])
        self.requires_grad_(False).eval().to(backbone.device)

    @classmethod
    def load(
        cls,
        x: str | os.PathLike,
        *,
        backbone: Backbone,
        image_encoder: str | os.PathLike | ImageEncoder | None = None,
    ) -> IPAdapter:
        """Load a .bin or .safetensors file for `backbone`, with its device and dtype.

        image_encoder: a folder of a CLIPVisionModelWithProjection, or one that is loaded; None:
        the folder `image_encoder` beside the file. Raises UserError, also where the three do not
        fit.
        """
        path = locate(os.fspath(x), "IP-Adapter")
        if not isinstance(backbone, UNetBackbone):
            raise UserError(f"{path} is for a UNet (Stable Diffusion), not for {backbone.name}.")
        if path.is_dir():
            raise UserError(f"{path} is a folder; give the IP-Adapter's file in it.")
        if (kind := identify(path)).name != "ip_adapter":
            raise refuse_other_kind(kind, "IP-Adapter", path)
        file = read_ip_adapter(path)
        if not isinstance(image_encoder, ImageEncoder):
            image_encoder = ImageEncoder.load(image_encoder or _beside(file), backbone.dtype)
        return cls(file, backbone, image_encoder.to(backbone.device))

    @torch.no_grad()
    def embed(self, pictures: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """RGB pictures → their tokens (N, T, D), and those of the unconditional half of
        guidance.
        """
        encoder: Any = self.encoder
        seen, nothing = encoder.encode(pictures, self.form != "base")
        weight = self.keys[0]
        return self.projection(seen.to(weight)), self.projection(nothing.to(weight))

    def changes(self, tokens: Tensor, nothing: Tensor, switch: Switch) -> dict[str, Change]:
        """What `embed`'s tokens, one row a picture, do to each attention over the text."""
        both = torch.cat([nothing, tokens])
        rows = zip(self.names, self.keys, self.values, strict=True)
        return {name: _Beside(switch, both, key, value) for name, key, value in rows}


class _Beside(Change):
    """The second attention. Its keys and values are computed once."""

    def __init__(self, switch: Switch, tokens: Tensor, key: Tensor, value: Tensor) -> None:
        super().__init__(switch)
        self.key = nn.functional.linear(tokens, key)  # (2N, T, D), the unconditional half first
        self.value = nn.functional.linear(tokens, value)

    def after(self, call: Call, out: Tensor) -> Tensor:
        rows = len(call.x)
        seen = call.attend(self.key[-rows:], self.value[-rows:])
        return out + self.switch.weights(out) * seen


def _beside(file: IPAdapterFile) -> Path:
    folder = file.where.parent / FOLDER
    if not folder.is_dir():
        raise UserError(
            f"{file.where} needs an image encoder, {file.encoder}, and there is no folder "
            f"{folder}; give its folder: --image-encoder FOLDER, or image_encoder= in Python."
        )
    return folder


def _check_encoder(file: IPAdapterFile, encoder: ImageEncoder) -> None:
    gives = encoder.width(file.form != "base")
    if gives != file.reads:
        raise UserError(
            f"{file.where} needs {file.encoder}, but the image encoder {encoder.name} gives "
            f"{gives} numbers; give another: --image-encoder FOLDER."
        )


def _check_base(file: IPAdapterFile, backbone: UNetBackbone) -> None:
    reads = backbone.unet.config.cross_attention_dim
    if reads != file.width:
        raise UserError(
            f"{file.where} was made for another base: its tokens have {file.width} numbers, the "
            f"text states of {backbone.name} {reads}."
        )


def _projection(file: IPAdapterFile) -> nn.Module:
    """diffusers' module of the file's form and sizes, without memory."""
    from diffusers.models import embeddings as kinds

    state = file.projection
    if file.form == "base":
        return empty(
            lambda: kinds.ImageProjection(
                image_embed_dim=file.reads,
                cross_attention_dim=file.width,
                num_image_text_embeds=file.tokens or 1,
            ),
            file.where,
        )
    if file.form == "full":
        return empty(lambda: kinds.IPAdapterFullImageProjection(file.reads, file.width), file.where)

    layers = {key.split(".")[1] for key in state if key.startswith("layers.")}
    query, inner = state.get("layers.0.attn.to_q.weight"), state.get("layers.0.ff.1.net.2.weight")
    if query is None or inner is None:
        raise UserError(f"{file.where} has a resampler without layers; it is damaged.")
    return empty(
        lambda: kinds.IPAdapterPlusImageProjection(
            embed_dims=file.reads,
            output_dims=file.width,
            hidden_dims=state["latents"].shape[-1],
            depth=len(layers),
            heads=query.shape[0] // HEAD,
            num_queries=file.tokens or 1,
            ffn_ratio=inner.shape[1] / inner.shape[0],
        ),
        file.where,
    )


def _shapes(backbone: UNetBackbone, width: int) -> dict[str, Tensor]:
    """The tensors of `ip_adapter` for a base: numbered by its attentions, of which those over the
    text have keys and values.
    """
    shapes = {}
    for i, (name, layer) in enumerate(attentions(backbone.unet).items()):
        if name.endswith("attn2"):
            for part, like in (("k", layer.to_k), ("v", layer.to_v)):
                shapes[f"{i}.to_{part}_ip.weight"] = like.weight.new_empty(
                    (like.out_features, width), device="meta"
                )
    return shapes
