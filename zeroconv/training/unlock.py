"""Training the base's decoder beside the control, for styles that the base cannot draw
(`control.unlock_decoder`).

The released code's `sd_locked = False`, off by default there too: its author calls it dangerous
where the data is not good, useful for special styles and kinds of pictures, and advises a learning
rate of 2e-6 in place of 1e-5. What trains there is `output_blocks` and `out`; here the same modules
under diffusers' names. The encoder, which the copy was made of and whose findings both must read
alike, stays frozen.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zeroconv.backbones import UNetBackbone, is_split, load_backbone
from zeroconv.control import Net
from zeroconv.errors import UserError
from zeroconv.files import atomic_folder
from zeroconv.jsonfile import write_json
from zeroconv.optim.muon import Muon, muon_groups
from zeroconv.training.recipes.training import TrainingSettings

DECODER = ("up_blocks", "conv_norm_out", "conv_out")  # after the residuals have been added


def unlock_(backbone: UNetBackbone, control: Net | None) -> nn.ModuleDict:
    """Let the decoder of `backbone` train, in place: whoever holds the backbone sees it change.
    Returns the decoder, with the UNet's own keys. Raises UserError beside a baseline.
    """
    if control is not None and not control.has_residuals:
        raise UserError(
            "control.unlock_decoder trains the base beside a ControlNet; the network of this "
            "recipe is a baseline, which is measured around a base that stays as it is, so leave "
            "control.unlock_decoder out."
        )
    unet = is_split(backbone)
    if not unet:
        raise UserError(
            f"control.unlock_decoder trains a UNet's decoder, which {backbone.name} has not; leave "
            "it out."
        )
    parts = {name: getattr(backbone.unet, name) for name in DECODER}
    decoder = nn.ModuleDict({name: module for name, module in parts.items() if module is not None})
    for parameter in decoder.parameters():
        # what trains must not share memory with the file it came from
        parameter.data = parameter.data.clone()
    return decoder.requires_grad_(True)


def add_to_optimizer(
    optimizer: torch.optim.Optimizer, decoder: nn.Module, settings: TrainingSettings
) -> None:
    """The decoder's groups, like the control's but at a share of its learning rate, whatever
    becomes of that.
    """
    rate = settings.decoder_learning_rate
    scale = 0.1 if rate is None else rate / settings.learning_rate
    groups = (
        muon_groups([decoder])
        if isinstance(optimizer, Muon)
        else [{"params": list(decoder.parameters())}]
    )
    for group in groups:
        optimizer.add_param_group({**group, "lr_scale": scale})


def save_base(
    name: str,
    trained: Mapping[str, Tensor],
    folder: str | os.PathLike,
    dtype: torch.dtype,
    **files: Any,
) -> None:
    """Write the base `name` with its `trained` weights (keys of the UNet) as a diffusers folder,
    whole or not at all. files: which the base is read from, as `load_backbone` takes them.

    Everything else is read anew: a run may hold it in a lower precision. Raises UserError where the
    base is gone.
    """
    backbone = load_backbone(name, dtype=dtype, **files)
    backbone.unet.load_state_dict({**backbone.unet.state_dict(), **trained})
    texts = [f"text_encoder{end}" for end in ("", "_2")]
    words = [f"tokenizer{end}" for end in ("", "_2")]
    parts: dict[str, Any] = {"unet": backbone.unet, "vae": backbone.vae}
    parts |= dict(zip(texts, backbone.text_encoders, strict=False))
    parts |= dict(zip(words, backbone.tokenizers, strict=False))
    with atomic_folder(folder) as temporary:
        for part, value in parts.items():
            value.save_pretrained(temporary / part)
        (temporary / "scheduler").mkdir()
        write_json(
            temporary / "scheduler" / "scheduler_config.json",
            backbone.scheduler_config,
            sort_keys=True,
        )
        write_json(
            temporary / "model_index.json", _index(parts, backbone.scheduler_config), sort_keys=True
        )


def _index(parts: Mapping[str, Any], scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """What diffusers reads first: the pipeline's class, and each part's library and class. No
    pipeline is built for it, as its constructor would rewrite some of the older configs.
    """
    from diffusers import __version__

    index: dict[str, Any] = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": __version__,
    }
    if "text_encoder_2" in parts:
        index |= {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True}
    else:
        index |= {"safety_checker": [None, None], "requires_safety_checker": False}
    for part, value in parts.items():
        index[part] = [
            "diffusers" if part in ("unet", "vae") else "transformers",
            type(value).__name__,
        ]
    nothing = {"feature_extractor": [None, None], "image_encoder": [None, None]}
    return {
        **index,
        **nothing,
        "scheduler": ["diffusers", scheduler.get("_class_name", "DDIMScheduler")],
    }
