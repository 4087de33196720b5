"""Two names for every module: diffusers' and those of the original latent-diffusion code (LDM).

Each function returns {diffusers module: original module}, a bijection, so that conversion there and
back is exact. Attention blocks and all deeper names are the same in both, so a prefix is enough for
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from zeroconv.errors import UserError

Names = dict[str, str]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_RESNET = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {
    "conv_shortcut": "nin_shortcut"
}
_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


@dataclass(frozen=True)
class Topology:
    """What the names depend on: residual blocks a level, which levels attend to the text, whether
    the middle does.

    A middle block without attention is a single residual block (the "small" controls of SDXL).
    """

    layers: int
    attention: tuple[bool, ...]
    middle: bool = True

    @classmethod
    def of_diffusers(cls, keys: Iterable[str]) -> Topology:
        keys = set(keys)
        layers, levels = _count(keys, "down_blocks.0.resnets.{}.conv1.weight"), _count(keys, _LEVEL)
        attention = tuple(
            f"down_blocks.{i}.attentions.0.norm.weight" in keys for i in range(levels)
        )
        return cls(layers, attention, "mid_block.attentions.0.norm.weight" in keys)

    @classmethod
    def of_original(cls, keys: Iterable[str]) -> Topology:
        keys = set(keys)
        blocks = _count(
            keys,
            "input_blocks.{}.0.in_layers.0.weight",
            start=1,
            gaps="input_blocks.{}.0.op.weight",
        )
        halvings = [k for k in range(1, blocks + 1) if f"input_blocks.{k}.0.op.weight" in keys]
        layers = (halvings[0] if halvings else blocks + 1) - 1
        firsts = [1, *(k + 1 for k in halvings)]
        attention = tuple(f"input_blocks.{k}.1.norm.weight" in keys for k in firsts)
        return cls(layers, attention, "middle_block.1.norm.weight" in keys)


_LEVEL = "down_blocks.{}.resnets.0.conv1.weight"


def _count(keys: set[str], pattern: str, start: int = 0, gaps: str | None = None) -> int:
    n = start
    while pattern.format(n) in keys or (gaps is not None and gaps.format(n) in keys):
        n += 1
    return n - start


def encoder_names(topology: Topology) -> Names:
    """Time embedding, input blocks and middle: what a UNet and a ControlNet share."""
    names = {"conv_in": "input_blocks.0.0"}
    names |= {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
    # SDXL
    names |= {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
    k = 1
    for level, attends in enumerate(topology.attention):
        for layer in range(topology.layers):
            names |= _resnet(f"down_blocks.{level}.resnets.{layer}", f"input_blocks.{k}.0")
            if attends:
                names[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{k}.1"
            k += 1
        if level < len(topology.attention) - 1:
            names[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{k}.0.op"
            k += 1
    names |= _resnet("mid_block.resnets.0", "middle_block.0")
    if topology.middle:
        names |= {"mid_block.attentions.0": "middle_block.1"} | _resnet(
            "mid_block.resnets.1", "middle_block.2"
        )
    return names


def unet_names(topology: Topology) -> Names:
    """The whole UNet (`model.diffusion_model.` in a full checkpoint)."""
    names, k = encoder_names(topology), 0
    levels = len(topology.attention)
    for level, attends in enumerate(reversed(topology.attention)):
        for layer in range(topology.layers + 1):
            names |= _resnet(f"up_blocks.{level}.resnets.{layer}", f"output_blocks.{k}.0")
            if attends:
                names[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{k}.1"
            k += 1
        if level < levels - 1:
            last = f"output_blocks.{k - 1}.{2 if attends else 1}.conv"
            names[f"up_blocks.{level}.upsamplers.0.conv"] = last
    return names | {"conv_norm_out": "out.0", "conv_out": "out.2"}


def controlnet_names(topology: Topology, hint_convolutions: int) -> Names:
    """A ControlNet (`control_model.` in a full checkpoint): encoder, hint encoder, zero
    convolutions.
    """
    names = encoder_names(topology)
    hint = ["conv_in", *(f"blocks.{i}" for i in range(hint_convolutions - 2)), "conv_out"]
    # every second entry of the original Sequential is a SiLU
    names |= {
        f"controlnet_cond_embedding.{name}": f"input_hint_block.{2 * i}"
        for i, name in enumerate(hint)
    }
    skips = (topology.layers + 1) * len(topology.attention)
    names |= {f"controlnet_down_blocks.{i}": f"zero_convs.{i}.0" for i in range(skips)}
    return names | {"controlnet_mid_block": "middle_block_out.0"}


def vae_names(layers: int, levels: int) -> Names:
    """The autoencoder (`first_stage_model.` in a full checkpoint)."""
    names = {name: name for name in ("quant_conv", "post_quant_conv")}
    for half, side, n in (("encoder", "down", layers), ("decoder", "up", layers + 1)):
        names |= {f"{half}.{name}": f"{half}.{name}" for name in ("conv_in", "conv_out")}
        names |= {f"{half}.conv_norm_out": f"{half}.norm_out"}
        names |= _vae_resnet(f"{half}.mid_block.resnets.0", f"{half}.mid.block_1")
        names |= _vae_resnet(f"{half}.mid_block.resnets.1", f"{half}.mid.block_2")
        for ours, theirs in _VAE_ATTENTION.items():
            names[f"{half}.mid_block.attentions.0.{ours}"] = f"{half}.mid.attn_1.{theirs}"
        for i in range(levels):
            # LDM counts the decoder's levels from the picture
            level = i if side == "down" else levels - 1 - i
            for j in range(n):
                names |= _vae_resnet(
                    f"{half}.{side}_blocks.{i}.resnets.{j}", f"{half}.{side}.{level}.block.{j}"
                )
            if i < levels - 1:
                names[f"{half}.{side}_blocks.{i}.{side}samplers.0.conv"] = (
                    f"{half}.{side}.{level}.{side}sample.conv"
                )
    return names


def rename(
    state: Mapping[str, Tensor], names: Mapping[str, str], where: object
) -> dict[str, Tensor]:
    """Rename every tensor by its module's entry; UserError for a tensor that no entry covers."""
    renamed, unknown = {}, []
    for key, value in state.items():
        module = key
        while module and module not in names:
            module = module.rpartition(".")[0]
        if module:
            renamed[names[module] + key[len(module) :]] = value
        else:
            unknown.append(key)
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise UserError(
            f"{where} has the unknown {', '.join(unknown[:3])}{more}; it belongs to another kind "
            "of model."
        )
    return renamed


def inverse(names: Names) -> Names:
    return {theirs: ours for ours, theirs in names.items()}


def _resnet(ours: str, theirs: str) -> Names:
    return {f"{ours}.{a}": f"{theirs}.{b}" for a, b in _RESNET.items()}


def _vae_resnet(ours: str, theirs: str) -> Names:
    return {f"{ours}.{a}": f"{theirs}.{b}" for a, b in _VAE_RESNET.items()}
