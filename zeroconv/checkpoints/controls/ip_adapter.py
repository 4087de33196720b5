"""IP-Adapter files as published: a projection of the picture's embedding (`image_proj`) and keys
and values for each attention over the text (`ip_adapter`).

Names of the projection become diffusers'. `read_ip_adapter` tells the four kinds apart by them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from zeroconv.checkpoints.reading import read_state_dict
from zeroconv.errors import UserError

Form = Literal["base", "plus", "full"]
_FULL = {"proj.0": "ff.net.0.proj", "proj.2": "ff.net.2", "proj.3": "norm"}
# within a layer of the resampler, which is (attention, feed-forward)
_RESAMPLER = {
    "0.norm1": "ln0",
    "0.norm2": "ln1",
    "0.to_q": "attn.to_q",
    "0.to_out": "attn.to_out.0",
    "1.0": "ff.0",
    "1.1": "ff.1.net.0.proj",
    "1.3": "ff.1.net.2",
}
_LAYER = re.compile(r"(layers\.\d+)\.(0\.norm1|0\.norm2|0\.to_q|0\.to_out|1\.0|1\.1|1\.3)\.(.+)")
_TOKENS = {"base": 4}  # of a picture; the published ones have four, which the shapes do not tell


@dataclass
class IPAdapterFile:
    """form: "base" reads the image encoder's projected embedding; "plus" (a resampler) and "full"
    (the full-face one) its states before the last layer. reads: how many numbers of it. width: of
    the text states that the tokens stand beside. tokens: a picture's, None: as many as it has.
    """

    form: Form
    reads: int
    width: int
    tokens: int | None
    projection: dict[str, Tensor]  # under diffusers' names
    attention: dict[str, Tensor]  # "1.to_k_ip.weight" …
    where: Path

    @property
    def encoder(self) -> str:
        """The image encoder it needs, in words."""
        names = {
            ("base", 1024): "CLIP ViT-H/14 (a projection to 1024)",
            ("base", 1280): "CLIP ViT-bigG/14 (a projection to 1280)",
            ("plus", 1280): "CLIP ViT-H/14 (states of 1280)",
            ("full", 1280): "CLIP ViT-H/14 (states of 1280)",
            ("plus", 1664): "CLIP ViT-bigG/14 (states of 1664)",
        }
        what = "a projection to" if self.form == "base" else "states of"
        return names.get((self.form, self.reads), f"CLIP with {what} {self.reads}")


def read_ip_adapter(path: Path) -> IPAdapterFile:
    """Read a file of either layout. Raises UserError, also for the FaceID kinds, which need a
    network that recognises faces.
    """
    state = read_state_dict(path)
    parts: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        if part not in parts or not rest:
            raise UserError(
                f"{path} has the unknown {key[:100]}; an IP-Adapter has image_proj and ip_adapter."
            )
        parts[part][rest] = value
    for name, tensors in parts.items():
        if not tensors:
            raise UserError(f"{path} has no {name}, so it is no whole IP-Adapter.")
    image = parts["image_proj"]
    if _is_face_id(image, parts["ip_adapter"]):
        raise UserError(
            f"{path} is an IP-Adapter FaceID, which reads what a network for recognising faces "
            "gives; zeroconv runs the base, plus, plus-face and full-face kinds."
        )
    if "proj.weight" in image:
        outputs, reads = _shape(image["proj.weight"], path)
        renamed = {key.replace("proj.", "image_embeds."): v for key, v in image.items()}
        width, tokens = outputs // _TOKENS["base"], _TOKENS["base"]
        return IPAdapterFile("base", reads, width, tokens, renamed, parts["ip_adapter"], path)
    if "proj.3.weight" in image:
        width, reads = len(image["proj.3.weight"]), _shape(image["proj.0.weight"], path)[1]
        renamed = {f"{_FULL[k[:6]]}{k[6:]}" if k[:6] in _FULL else k: v for k, v in image.items()}
        return IPAdapterFile("full", reads, width, None, renamed, parts["ip_adapter"], path)
    if "latents" in image and "proj_in.weight" in image and "proj_out.weight" in image:
        width, reads = _shape(image["proj_out.weight"], path)[0], image["proj_in.weight"].shape[-1]
        tokens = image["latents"].shape[-2]
        renamed = _resampler(image)
        return IPAdapterFile("plus", reads, width, tokens, renamed, parts["ip_adapter"], path)
    raise UserError(
        f"{path} is an IP-Adapter of a kind that zeroconv does not know: its projection has "
        f"{', '.join(sorted(image)[:3])}."
    )


def _is_face_id(image: Mapping[str, Tensor], attention: Mapping[str, Tensor]) -> bool:
    loras = any("_lora." in key for key in attention)
    face = "norm.weight" in image and "proj.2.weight" in image and "proj.3.weight" not in image
    return loras or face or any(key.startswith("perceiver_resampler.") for key in image)


def _resampler(image: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A resampler's tensors under diffusers' names; one tensor of keys and values becomes two."""
    renamed: dict[str, Tensor] = {}
    for key, value in image.items():
        if match := _LAYER.fullmatch(key):
            renamed[f"{match[1]}.{_RESAMPLER[match[2]]}.{match[3]}"] = value
        elif key.endswith(".0.to_kv.weight"):
            layer = key.removesuffix(".0.to_kv.weight")
            names = (f"{layer}.attn.to_k.weight", f"{layer}.attn.to_v.weight")
            renamed |= dict(zip(names, value.chunk(2, dim=0), strict=True))
        else:
            renamed[key] = value
    return renamed


def _shape(weight: Tensor, where: Path) -> tuple[int, int]:
    if weight.ndim != 2:
        raise UserError(f"{where} has a projection of shape {list(weight.shape)}; it is damaged.")
    return weight.shape[0], weight.shape[1]
