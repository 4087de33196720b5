"""Models of `transformers` from a folder or a hub id: never their own code, never a pickle,
never NaN weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zeroconv.checkpoints.reading import read_config
from zeroconv.checkpoints.strict import check_finite
from zeroconv.errors import UserError

# said at every call: transformers otherwise asks at the terminal whether to run a folder's code
SAFE: dict[str, Any] = {"trust_remote_code": False}
SAFE_WEIGHTS: dict[str, Any] = {**SAFE, "use_safetensors": True}
_CONFIGS = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
)


def check_no_code(model: str) -> None:
    """Raise UserError for a folder whose configs name code of their own (`auto_map`)."""
    folder = Path(model).expanduser()
    if folder.is_file():
        raise UserError(f"{model} is a file; give the folder of a transformers model, or a hub id.")
    for name in _CONFIGS:
        if (folder / name).is_file() and read_config(folder, name).get("auto_map"):
            raise code_refused(model, name)


def code_refused(model: str, name: str = "config.json") -> UserError:
    """The sentence for a model that comes with code."""
    return UserError(
        f"{model} brings code of its own ({name} has an auto_map), which zeroconv never runs; give "
        "a model that transformers knows by itself."
    )


def load_pretrained(kind: Any, model: str, what: str) -> Any:
    """A model of a class of transformers, in eval mode. `what`: "CLIP", "annotator", for the
    sentence.

    Raises UserError where it brings code, has no .safetensors, cannot be built, lacks weights or
    has NaN in them.
    """
    check_no_code(model)
    try:
        net, report = kind.from_pretrained(model, output_loading_info=True, **SAFE_WEIGHTS)
    # transformers raises a dozen kinds for what is missing or makes no sense
    except Exception as error:
        raise cannot_load(model, what, error) from error
    if missing := sorted(report.get("missing_keys") or ()):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"the weights of {model} lack {missing[0]}{more}, so it is no {what} that can be used."
        )
    check_finite(net.state_dict(), model)
    return net.eval()


def load_part(kind: Any, model: str, what: str) -> Any:
    """A processor, a tokenizer or a config. Raises UserError."""
    check_no_code(model)
    try:
        return kind.from_pretrained(model, **SAFE)
    # transformers raises a dozen kinds for what is missing or makes no sense
    except Exception as error:
        raise cannot_load(model, what, error) from error


def cannot_load(model: str, what: str, error: Exception) -> UserError:
    """One sentence of transformers' many."""
    words = " ".join(str(error).split())
    if "trust_remote_code" in words:
        return code_refused(model)
    reason = words[:300].rstrip(" .") if words else type(error).__name__
    return UserError(f"{model} is no {what} that can be loaded ({reason}).")
