"""What `zeroconv generate` does with files: tried first, written as it goes, only ours touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from zeroconv.generation.metadata.record import read_info


@pytest.fixture
def generate(zeroconv, models: Path):
    def run(*words: object):
        few = ("--base", models / "base", "--steps", 1, "--cfg", 1, "--dtype", "float32")
        return zeroconv("generate", *words, *few)

    return run


def refused(result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert all(part in result.stderr for part in parts), result.stderr


@pytest.mark.parametrize("role", ["hint", "drawn", "mask"])
@pytest.mark.parametrize("way", ["itself", "link", "numbered"])
def test_generate_refuses_to_write_over_its_input(
    generate, models, photo, tmp_path, role, way
) -> None:
    out = tmp_path / "photo.png"
    if way == "link":
        (tmp_path / "link.png").symlink_to(photo)
        out = tmp_path / "link.png"
    if way == "numbered":
        photo = photo.rename(tmp_path / "photo-1.png")
    before = photo.read_bytes()
    sign = ":" if role == "drawn" else "="
    other = tmp_path / "other.png"
    Image.new("RGB", (64, 64)).save(other)
    control = f"{models / 'canny'}{sign}{other if role == 'mask' else photo}"
    mask = ("--region", photo) if role == "mask" else ()
    count = 2 if way == "numbered" else 1
    words = ("a ball", "--control", control, *mask, "--count", count, "--out", out)
    refused(generate(*words), "is the input itself")
    assert photo.read_bytes() == before


def test_generate_replaces_pictures_it_made_and_nobody_else_s(generate, tmp_path) -> None:
    out = tmp_path / "out.png"
    assert generate("a ball", "--out", out).exit_code == 0
    assert generate("a cube", "--out", out).exit_code == 0
    assert read_info(out)["prompt"] == "a cube"
    for content in (b"#!/bin/sh\n", b"\x89PNG\r\n\x1a\n, somebody's"):
        out.write_bytes(content)
        refused(generate("a ball", "--out", out), "did not write it")
        assert out.read_bytes() == content


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("no/such/file.txt/x.png", "cannot be written"),
        ("file.txt/folder", "cannot be written"),
        ("x" * 300 + ".png", "the name is too long"),
    ],
)
def test_generate_tries_its_output_before_any_work(
    generate, tmp_path, where, sentence, monkeypatch
) -> None:
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "no" / "such").mkdir(parents=True)
    (tmp_path / "no" / "such" / "file.txt").write_text("x")
    monkeypatch.setattr("zeroconv.backbones.load_backbone", lambda *_, **__: pytest.fail("worked"))
    refused(generate("a ball", "--out", tmp_path / where), sentence)


def test_generate_saves_and_names_what_is_done_when_the_rest_fails(
    generate, tmp_path, monkeypatch
) -> None:
    from zeroconv.generation.metadata import record as metadata

    save, saved = metadata.save_picture, []

    def full(image, path, about, *pictures):
        if len(saved) == 2:
            raise OSError(28, "No space left on device", str(path))
        saved.append(path)
        save(image, path, about, *pictures)

    monkeypatch.setattr(metadata, "save_picture", full)
    result = generate("a ball", "--count", 3, "--out", tmp_path / "many", "--json")
    assert result.exit_code == 2
    assert "note: 2 of 3 pictures are done" in result.stderr
    assert "the disk is full" in result.stderr
    report = json.loads(result.stdout)
    assert report["finished"] is False
    assert [Path(p["file"]).name for p in report["pictures"]] == ["0000.png", "0001.png"]
    assert all(Path(p["file"]).is_file() for p in report["pictures"])
    plain = generate("a ball", "--count", 3, "--out", tmp_path / "again")
    assert plain.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_generate_keeps_what_is_done_when_it_is_stopped(models, tmp_path, number, code) -> None:
    words = ["--base", models / "base", "--steps", 1, "--count", 5000, "--out", tmp_path / "many"]
    command = [sys.executable, "-m", "zeroconv.cli", "generate", "a ball", *map(str, words)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ}
    )
    first = process.stdout.readline().decode().strip()
    assert read_info(first)["prompt"] == "a ball"  # written when it was done, not at the end
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    printed = [first, *out.decode().split()]
    assert process.returncode == code
    assert "Traceback" not in err.decode()
    assert f"note: {len(printed)} of 5000 pictures are done" in err.decode()
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == [
        Path(path).name for path in printed
    ]


def test_prompt_that_is_cut_is_noted(generate, tmp_path) -> None:
    result = generate("ball " * 5000, "--schedule", "trailing", "--out", tmp_path / "a.png")
    assert result.exit_code == 0, result.output
    assert "more than the 896 tokens" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("prompt", ["a \udcff ball", "\ud800", "x" * 200_000])
def test_a_prompt_that_is_no_text_is_refused(generate, tmp_path, prompt) -> None:
    refused(generate(prompt, "--out", tmp_path / "a.png"), "prompt")
    refused(generate("a ball", "--negative", prompt, "--out", tmp_path / "a.png"), "negative")


def test_what_belongs_to_a_control_is_refused_without_one(generate, tmp_path) -> None:
    for option, value in (
        ("--scale", 0.5),
        ("--start", 0.1),
        ("--mode", "prompt"),
        ("--mask", "x.png"),
    ):
        refused(generate("a ball", option, value, "--out", tmp_path / "a.png"), option, "--control")


def test_hints_too_large_to_be_kept_are_noted(
    generate, models, photo, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("zeroconv.generation.metadata.record.MOST_TEXT", 10)
    result = generate(
        "a ball", "--control", f"{models / 'canny'}:{photo}", "--out", tmp_path / "a.png"
    )
    assert "too large to be kept" in result.stderr
    assert read_info(tmp_path / "a.png")["hints"] == []
