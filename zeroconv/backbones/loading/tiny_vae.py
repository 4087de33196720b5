"""A small decoder beside a base's VAE: a given one, or the embedded one of the playroom's VAE."""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroconv.backbones.autoencoder import weight_of
from zeroconv.backbones.loading.building import empty, fill
from zeroconv.backbones.loading.locate import ASSETS, locate
from zeroconv.checkpoints.bounds import check_config
from zeroconv.checkpoints.tiny_vae import read_tiny_vae
from zeroconv.checkpoints.typed import check_types
from zeroconv.errors import UserError

EMBEDDED = "playroom-tiny-vae"
LEAST = 14.0  # dB; a picture of one colour has 11
_PATTERNS = ("config.json", "*.safetensors")
# tensors of the playroom's VAE by which it is known again
_MARKS = ("post_quant_conv.weight", "decoder.conv_in.bias", "decoder.conv_out.weight")


def find_tiny_vae(x: str | os.PathLike) -> Path:
    """The path of a file, a folder, an embedded name or a hub id. UserError for none."""
    return locate(os.fspath(x), "tiny VAE", _PATTERNS)


def load_tiny_vae(x: str | os.PathLike, backbone: Any) -> Any:
    """A file, folder, embedded name or hub id → diffusers' AutoencoderTiny with a decoder alone, in
    the dtype of the backbone's VAE.

    Raises UserError for what is none, or is of latents of another shape. A note says so where it
    decodes otherwise than the backbone's VAE encodes.
    """
    path = find_tiny_vae(x)
    tiny = build_tiny_vae(path, weight_of(backbone.vae).dtype)
    _check_shape(tiny, backbone, path)
    ratio = _agreement(tiny, backbone)
    if ratio < LEAST:
        warnings.warn(
            f"the tiny VAE {path} decodes what the VAE of {backbone.name} encodes to another "
            f"picture ({ratio:.0f} dB): it belongs to another family, and colours will be wrong.",
            stacklevel=3,
        )
    return tiny


def embedded_tiny_vae(backbone: Any) -> Any | None:
    """The embedded one, where the backbone's VAE is the embedded playroom's and reads latents as
    they are; else None.
    """
    vae = getattr(backbone, "_vae", None)
    if vae is None or not (ASSETS / EMBEDDED).is_dir():
        return None
    config = vae.config
    if config.get("scaling_factor") != 1 or config.get("shift_factor"):
        return None
    return build_tiny_vae(ASSETS / EMBEDDED, weight_of(vae).dtype) if _is_playrooms(vae) else None


def build_tiny_vae(path: Path, dtype: torch.dtype | None = None) -> Any:
    """diffusers' AutoencoderTiny without its encoder; None is the dtype of the file."""
    from diffusers import AutoencoderTiny

    config, state = read_tiny_vae(path)
    # diffusers writes it for other classes to read, and warns of it when it reads it itself
    config = {name: value for name, value in config.items() if name != "block_out_channels"}
    check_config(config, path)
    check_types(config, AutoencoderTiny, path)
    tiny = empty(lambda: AutoencoderTiny.from_config(config), path)
    tiny.encoder = nn.Identity()
    fill(tiny.decoder, state, path, dtype)
    return tiny.requires_grad_(False)


def _check_shape(tiny: Any, backbone: Any, path: Path) -> None:
    config = tiny.config
    if config.latent_channels != backbone.latent_channels or config.out_channels != 3:
        raise UserError(
            f"the tiny VAE {path} makes {config.out_channels} channels of latents of "
            f"{config.latent_channels}, but those of {backbone.name} have "
            f"{backbone.latent_channels}; it belongs to another family of bases."
        )
    scale = pixels_of(tiny)
    if scale != backbone.latent_scale:
        raise UserError(
            f"the tiny VAE {path} makes {scale} pixels of a latent, but the VAE of {backbone.name} "
            f"{backbone.latent_scale}; it belongs to another family of bases."
        )


def pixels_of(tiny: Any) -> int:
    """Pixels a latent: every level but the first enlarges."""
    config = tiny.config
    return config.upsampling_scaling_factor ** (len(config.num_decoder_blocks) - 1)


@torch.no_grad()
def _agreement(tiny: Any, backbone: Any) -> float:
    """How near a picture comes back that the backbone encodes and the small decoder decodes, in dB
    (PSNR). Latents of other families have the same shape, and no config tells them apart.
    """
    picture = _ramps(8 * backbone.latent_scale).to(backbone.device)
    z = backbone.latents_from_moments(backbone.encode_image(picture * 2 - 1), sample=False)
    made = (tiny.to(z.device).decode(z.to(weight_of(tiny))).sample.float() / 2 + 0.5).clamp(0, 1)
    error = float((made - picture).square().mean())
    return -10 * math.log10(error) if error > 0 else math.inf


def _ramps(side: int) -> Tensor:
    """A picture (1, 3, side, side) in [0, 1]: red grows to the right, green downwards, and blue is
    in quarters.
    """
    ramp = torch.linspace(0, 1, side)
    red, green = ramp.expand(side, side), ramp[:, None].expand(side, side)
    blue = ((red > 0.5) ^ (green > 0.5)).float()
    return torch.stack([red, green, blue])[None]


def _is_playrooms(vae: Any) -> bool:
    """Whether its decoder is the embedded playroom's, by a few of its tensors in their dtype."""
    from safetensors import safe_open

    state = dict(vae.named_parameters())
    file = ASSETS / "playroom" / "vae" / "diffusion_pytorch_model.safetensors"
    with safe_open(file, "pt") as stored:
        for name in _MARKS:
            expected = stored.get_tensor(name)
            value = state.get(name)
            if value is None or value.shape != expected.shape:
                return False
            if not torch.equal(value.cpu(), expected.to(value.dtype)):
                return False
    return True
