"""Files of textual inversion in every layout, and files that are none."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from zeroconv.errors import UserError
from zeroconv.prompts.embeddings import embeddings_from, load_embedding

MATRIX = torch.arange(8.0).view(2, 4)
A1111: dict[str, Any] = {"string_to_token": {"*": 265}, "name": "inner", "step": 3}
# layout → (what is saved, suffix, the name that stands for it, its parts)
LAYOUTS = {
    "a1111 pt": ({**A1111, "string_to_param": {"*": MATRIX}}, ".pt", "file", ["any"]),
    "a1111 pt of a parameter": (
        {**A1111, "string_to_param": {"*": nn.Parameter(MATRIX)}}, ".pt", "file", ["any"],
    ),
    "a1111 pt of old torch": (
        {**A1111, "string_to_param": nn.ParameterDict({"*": nn.Parameter(MATRIX)})},
        ".pt", "file", ["any"],
    ),
    "a1111 bin": ({**A1111, "string_to_param": {"*": MATRIX}}, ".bin", "file", ["any"]),
    "a1111 safetensors": ({"emb_params": MATRIX}, ".safetensors", "file", ["any"]),
    "diffusers bin": ({"<cat-toy>": MATRIX[0]}, ".bin", "<cat-toy>", ["any"]),
    "diffusers safetensors": ({"<cat-toy>": MATRIX}, ".safetensors", "<cat-toy>", ["any"]),
    "sdxl safetensors": (
        {"clip_l": MATRIX, "clip_g": MATRIX.repeat(1, 2)}, ".safetensors", "file",
        ["clip_l", "clip_g"],
    ),
    "sdxl pt": ({"clip_l": MATRIX, "clip_g": MATRIX}, ".pt", "file", ["clip_l", "clip_g"]),
    "half precision": ({"emb_params": MATRIX.half()}, ".safetensors", "file", ["any"]),
}  # fmt: skip


def saved(folder: Path, content: Any, suffix: str) -> Path:
    path = folder / f"file{suffix}"
    if suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_load_embedding_reads_every_layout(layout: str, tmp_path: Path) -> None:
    content, suffix, name, parts = LAYOUTS[layout]
    embedding = load_embedding(saved(tmp_path, content, suffix))
    assert embedding.name == name and list(embedding.vectors) == parts
    first = embedding.vectors[parts[0]]
    assert first.dtype == torch.float32 and first.ndim == 2 and not first.requires_grad
    assert torch.equal(first, MATRIX[: len(first)])
    assert load_embedding(tmp_path / f"file{suffix}", "other").name == "other"


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil"),))


@pytest.mark.parametrize(
    ("content", "suffix", "words"),
    [
        (
            {"emb_params": MATRIX, "other": MATRIX + 1},
            ".safetensors",
            "holds 2 tensors, so",
        ),
        ({"emb_params": torch.zeros(1, 2, 3)}, ".safetensors", r"shape \(1, 2, 3\)"),
        ({"emb_params": torch.zeros(2, 4, dtype=torch.int64)}, ".safetensors", "floating-point"),
        ({"emb_params": MATRIX / 0}, ".safetensors", "not finite"),
        ({"emb_params": torch.zeros(2000, 4)}, ".safetensors", "1 to 1000 vectors"),
        ({"string_to_param": {"a": MATRIX, "b": MATRIX}}, ".pt", "holds 2 tensors"),
        ({"string_to_param": {"*": 3}}, ".pt", "holds 0 tensors"),
        ({"string_to_param": {"*": Evil()}}, ".pt", "holds more than tensors"),
        ([MATRIX], ".pt", "holds no tensors under names"),
    ],
)
def test_load_embedding_refuses_other_files(
    content: Any, suffix: str, words: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        load_embedding(saved(tmp_path, content, suffix))
    assert not (tmp_path / "evil").exists()


def test_load_embedding_refuses_what_is_no_weights_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no weights file"):
        load_embedding(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(UserError, match=r"text\.pt"):
        load_embedding(tmp_path / "text.pt")
    (tmp_path / "new.pt").write_bytes(pickle.dumps(Evil(), protocol=5))
    with pytest.raises(UserError, match="could run code"):
        load_embedding(tmp_path / "new.pt")


def test_embeddings_from_lists_and_mappings(tmp_path: Path) -> None:
    path = saved(tmp_path, {"emb_params": MATRIX}, ".safetensors")
    assert [one.name for one in embeddings_from([path])] == ["file"]
    assert [one.name for one in embeddings_from(str(path))] == ["file"]
    (named,) = embeddings_from({"x": path})
    assert named.name == "x" and embeddings_from({"y": named})[0].name == "y"
    assert embeddings_from({"z": MATRIX})[0].vectors["any"].shape == (2, 4)
    assert embeddings_from(None) == []
    with pytest.raises(UserError, match="two embeddings have the name 'file'"):
        embeddings_from([path, path])
    with pytest.raises(TypeError, match="embeddings holds a int"):
        embeddings_from([3])
    with pytest.raises(UserError, match="has no name"):
        embeddings_from({" ": MATRIX})
