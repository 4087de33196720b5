"""Prompts on the command line: weights, embeddings and what a picture records of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.helpers.tiny import TEXT_WIDTH
from zeroconv.generation.metadata.record import read_info


@pytest.fixture
def generate(zeroconv, models: Path, tmp_path: Path):
    def run(*words: object) -> np.ndarray:
        out = tmp_path / "out.png"
        result = zeroconv("generate", *words, "--base", models / "base", "--steps", 1, "--out", out)
        assert result.exit_code == 0, result.output
        run.notes = result.stderr  # type: ignore[attr-defined]
        return np.asarray(Image.open(out).convert("RGB")).astype(int)

    return run


def test_generate_plain_prompt_reads_no_weights(generate, tmp_path: Path) -> None:
    weighted, plain = generate("a (b:1.9)"), generate("a (b:1.9)", "--plain-prompt")
    assert (weighted != plain).any()
    assert read_info(tmp_path / "out.png")["plain_prompt"] is True
    assert (generate(r"a \(b:1.9\)") == plain).all()


def test_generate_notes_of_prompts_are_printed(generate) -> None:
    generate("[a|b] <lora:x:1>")
    assert "note: prompt: [a|b] is not supported" in generate.notes
    assert "note: prompt: <lora:x:…> is taken out" in generate.notes
    generate("[a|b]", "--plain-prompt")
    assert "not supported" not in generate.notes


def test_generate_reads_embeddings_by_their_files_or_other_names(generate, tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    save_file({"emb_params": 3 * torch.ones(2, TEXT_WIDTH)}, path)
    plain = generate("a style")
    styled = generate("a style", "--embedding", path)
    assert (styled != plain).any()
    assert read_info(tmp_path / "out.png")["embeddings"] == [str(path)]
    assert (generate("a zz", "--embedding", f"zz={path}") == styled).all()


def test_generate_clip_skip_changes_the_picture(generate) -> None:
    assert (generate("a ball", "--clip-skip", 1) != generate("a ball")).any()
    assert (generate("a ball", "--clip-skip", 0) == generate("a ball")).all()


def test_generate_original_sides_belong_together(zeroconv, models: Path) -> None:
    result = zeroconv("generate", "a", "--base", models / "base", "--original-height", 64)
    assert result.exit_code == 2 and "give both" in result.stderr
