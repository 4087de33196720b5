"""Modules of diffusion transformers from a config and a state dict: the transformers, T5, and the
language models that read prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zeroconv.backbones.loading.building import Keep, empty, fill
from zeroconv.checkpoints.bounds import check_config
from zeroconv.checkpoints.flow.text_files import language_state
from zeroconv.errors import UserError

State = Mapping[str, Tensor]


def build_part(
    kind: Any,
    config: dict,
    state: State,
    where: object,
    dtype: torch.dtype | None = None,
    keep: Keep = dict,
) -> Any:
    """A module of diffusers' class `kind`. Check the config before."""
    return fill(empty(lambda: kind.from_config(config), where), state, where, dtype, keep)


def build_t5(config: dict, state: State, where: object, dtype: torch.dtype | None = None) -> Any:
    """A T5EncoderModel; its one table of words stands in files under either of two names."""
    from transformers import T5Config, T5EncoderModel

    check_config(_plain(config), where)
    module = empty(lambda: T5EncoderModel(T5Config(**_known(config))), where)
    shared, other = "shared.weight", "encoder.embed_tokens.weight"
    state = {key: value for key, value in state.items() if not key.startswith("decoder.")}
    for have, lacks in ((shared, other), (other, shared)):
        if have in state and lacks not in state:
            state[lacks] = state[have]
    if other not in module.state_dict():
        state.pop(other, None)
    module = fill(module, state, where, dtype)
    module.set_input_embeddings(module.shared)  # one table, not two
    return module


def build_qwen(
    config: dict, state: State, where: object, dtype: torch.dtype | None = None, kind: str = "qwen3"
) -> Any:
    """The language model of Qwen3 ("qwen3") or Qwen2.5-VL ("qwen2_5_vl"), without the part that
    sees and the one that writes.
    """
    check_config(_plain(config), where)
    made = (_qwen3 if kind == "qwen3" else _qwen_vl)(config, where)
    return fill(empty(made, where), language_state(state), where, dtype)


def _qwen3(config: dict, where: object) -> Any:
    from transformers import Qwen3Config, Qwen3Model

    _check_kind(config, "qwen3", where)
    return lambda: Qwen3Model(Qwen3Config(**_known(config)))


def _qwen_vl(config: dict, where: object) -> Any:
    from transformers import Qwen2_5_VLConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel

    _check_kind(config, "qwen2_5_vl", where)

    def made() -> Any:
        return Qwen2_5_VLTextModel(Qwen2_5_VLConfig(**_known(config)).text_config)

    return made


def _check_kind(config: dict, wanted: str, where: object) -> None:
    if (kind := config.get("model_type")) != wanted:
        raise UserError(
            f"{where} is a {str(kind)[:80]}, but this base reads prompts with a {wanted}."
        )


def _known(config: dict) -> dict[str, Any]:
    """What transformers' config takes: no types of numbers, which the caller chooses."""
    names = ("dtype", "torch_dtype", "model_type", "architectures", "transformers_version")
    return {key: value for key, value in config.items() if key not in names}


def _plain(config: dict) -> dict[str, Any]:
    """Without entries that are numbers of words and may be as large as they like."""
    return {k: v for k, v in config.items() if not k.endswith("_token_id")}
