"""Tokenizers of a base: of its folder, beside its file, or of the same family on the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from zeroconv.backbones.loading.locate import locate
from zeroconv.errors import UserError

CLIP = "openai/clip-vit-large-patch14"  # SD 1.x's, and SDXL's first; both of SDXL have its words
SD2 = "stabilityai/stable-diffusion-2"
_FILES = ("tokenizer*", "vocab.json", "merges.txt", "special_tokens_map.json")

# what OpenCLIP fills short prompts with: token 0, where CLIP repeats the last one
OPEN_CLIP_PAD = "!"


def load_tokenizer(folder: Path, **options: Any) -> Any:
    """A CLIPTokenizer from its folder. Raises UserError where it is missing or broken."""
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )
    # transformers raises OSError, TypeError and others for what is missing or broken
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"the tokenizer in {folder} cannot be read ({reason}); copy the model's again."
        ) from error
    if tokenizer.vocab_size < 3:  # transformers makes an empty one of a folder without a vocabulary
        raise UserError(
            f"the tokenizer in {folder} has no words (vocab.json or tokenizer.json); copy the "
            "model's again."
        )
    return tokenizer


def load_any_tokenizer(folder: Path) -> Any:
    """The tokenizer of its folder, of whatever class (T5, Qwen). Raises UserError where it is
    missing or broken.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    # transformers raises OSError, TypeError and others for what is missing or broken
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"the tokenizer in {folder} cannot be read ({reason}); copy the model's again."
        ) from error


def tokenizers_for(path: Path, sd2: bool, xl: bool) -> list[Any]:
    """The tokenizers of a base in one file, one a text encoder.

    In this order: `tokenizer/` beside the file, the one of the same family in the hub's cache, the
    hub. SDXL's second is `tokenizer_2/` beside the file, or the first one filling up with "!".
    Raises UserError where there is none.
    """
    folder = path.parent / "tokenizer"
    if not folder.is_dir():
        folder = _from_hub(path, sd2)
    first = load_tokenizer(folder)
    if not xl:
        return [first]

    second = path.parent / "tokenizer_2"
    if second.is_dir():
        return [first, load_tokenizer(second)]
    return [first, load_tokenizer(folder, pad_token=OPEN_CLIP_PAD)]


# kind of text encoder → where on the hub its tokenizer is, and in which folder
_OF_FLOWS = {
    "t5": ("black-forest-labs/FLUX.1-schnell", "tokenizer_2"),
    "qwen2_5_vl": ("Qwen/Qwen-Image", "tokenizer"),
    "qwen3": ("Tongyi-MAI/Z-Image-Turbo", "tokenizer"),
}


def flow_tokenizer(
    path: Path, folder: Path | None, kind: str, name: str, read: Callable[..., Any]
) -> Any:
    """The tokenizer of a text encoder of a diffusion transformer in one file.

    folder: where it stands, else it is taken from the hub's cache, or from the hub. name: of the
    folder that should be there. Raises UserError.
    """
    if folder is not None:
        return read(folder)
    clip = kind.startswith("clip")
    repository, inside = (CLIP, "") if clip else _OF_FLOWS[kind]
    try:
        patterns = _FILES if clip else (f"{inside}/*",)
        there = locate(repository, "tokenizer", patterns)
    except UserError as error:
        raise UserError(
            f"{path} holds no tokenizers, and that of {repository} is not in the hub's cache and "
            f"cannot be fetched; put {name}/ beside the file, or give its folder as --parts "
            "(parts= in Python)."
        ) from error
    return read(there / inside, **({"pad_token": OPEN_CLIP_PAD} if kind == "clip_g" else {}))


def _from_hub(path: Path, sd2: bool) -> Path:
    name = SD2 if sd2 else CLIP
    try:
        folder = locate(name, "tokenizer", ("tokenizer/*",) if sd2 else _FILES)
    except UserError as error:
        raise UserError(
            f"{path} holds no tokenizer, and {name} is not in the hub's cache and cannot be "
            f"fetched; put its tokenizer files into {path.parent / 'tokenizer'}."
        ) from error
    return folder / "tokenizer" if sd2 else folder
