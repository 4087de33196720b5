"""Every command and every Python example of the README runs, in order, in one folder, with the embedded models."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from zeroconv.cli import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
ELSEWHERE = ("make", "pip", "git", "cd")  # installing is what .ci/run does with every new machine

pytestmark = pytest.mark.skipif(
    not (ROOT / "zeroconv" / "assets" / "playroom").is_dir(), reason="the embedded base model is not there yet"
)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    return folder


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_block_runs(index: int, workplace: Path) -> None:
    language, text = BLOCKS[index]
    before = Path.cwd()
    os.chdir(workplace)
    try:
        if language == "python":
            exec(compile(text, f"README block {index}", "exec"), {"__name__": "__main__"})
        else:
            for line in text.splitlines():
                run_line(line)
    finally:
        os.chdir(before)


def run_line(line: str) -> None:
    words = shlex.split(line, comments=True)
    if not words or words[0] in ELSEWHERE:
        return
    assert words[0] == "zeroconv", f"the README runs something else than zeroconv: {line}"
    result = CliRunner().invoke(app, shorter(words[1:]), catch_exceptions=False)
    assert result.exit_code == 0, f"{line}\n{result.output}"


def shorter(words: list[str]) -> list[str]:
    """The same command, with trainings of two steps on a few pictures, and few pictures measured."""
    if words[0] == "evaluate":
        return [*words, "--limit", "4", "--steps", "4"]
    if words[0] != "train":
        return words
    settings = ["training.steps=2", "training.warmup=0", "training.batch_size=2", "training.validate_every=0"]
    settings += ["training.sample_count=0", "data.train=stickers?split=train&limit=4", "data.cache=cache"]
    settings += ["data.validation=stickers?split=test&limit=4", "data.workers=1"]
    return [*words, *(word for setting in settings for word in ("--set", setting))]


def test_the_readme_has_examples_of_both_kinds() -> None:
    commands = {
        words[1]
        for language, text in BLOCKS
        if language == "bash"
        for line in text.splitlines()
        if len(words := shlex.split(line, comments=True)) > 1 and words[0] == "zeroconv"
    }
    assert {"generate", "annotate", "train", "evaluate", "info", "convert", "playroom"} <= commands
    assert any(language == "python" for language, _ in BLOCKS)


def test_linked_files_exist() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    missing = [target for target in targets if not (ROOT / target).exists()]
    assert not missing
