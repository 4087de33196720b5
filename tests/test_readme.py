"""Every command and Python example of the README and of the quickstart runs, with the embedded
models; each page in order, in a folder of its own.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from zeroconv.cli import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/quickstart.md")
}
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = [
    (name, language, text) for name, page in PAGES.items() for language, text in BLOCK.findall(page)
]
ELSEWHERE = ("make", "pip", "git", "cd")  # installing is what .ci/run does with every new machine

pytestmark = pytest.mark.skipif(
    not (ROOT / "zeroconv" / "assets" / "playroom").is_dir(),
    reason="the embedded base model is not there yet",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder a page, with the recipes and with what the reader brings along."""
    made = {name: tmp_path_factory.mktemp("page") for name in PAGES}
    for folder in made.values():
        shutil.copytree(ROOT / "recipes", folder / "recipes")
        bring(folder)
    return made


def bring(folder: Path) -> None:
    """A base in one file, a control of it in one file, a photograph and a recipe."""
    from tests.helpers.tiny import tiny_backbone
    from tests.helpers.tiny_folder import save_single_file
    from zeroconv import ControlNet, playroom
    from zeroconv.checkpoints import convert

    backbone = tiny_backbone()
    save_single_file(folder / "my-sd15.safetensors", backbone)

    ControlNet.from_backbone(backbone).save(folder / "control")
    convert(folder / "control", folder / "control.safetensors", "original")
    state = load_file(folder / "control.safetensors")
    torch.save(state, folder / "control_v11p_sd15_canny.pth")

    playroom.render(0, size=64).image.save(folder / "photo.jpg")
    recipe = re.search(
        r"^```yaml\n(.*?)^```", PAGES["docs/quickstart.md"], re.DOTALL | re.MULTILINE
    )
    assert recipe
    (folder / "edges.yaml").write_text(recipe[1], encoding="utf-8")


# a slow block needs no file of another one
INDICES = [
    pytest.param(i, marks=pytest.mark.slow) if "zeroconv evaluate playroom" in text else i
    for i, (_, _, text) in enumerate(BLOCKS)
]


@pytest.mark.parametrize("index", INDICES)
def test_docs_block_runs(index: int, folders: dict[str, Path]) -> None:
    page, language, text = BLOCKS[index]
    before = Path.cwd()
    os.chdir(folders[page])
    try:
        if language == "python":
            exec(compile(text, f"{page}, block {index}", "exec"), {"__name__": "__main__"})
        else:
            for line in lines(text):
                run_line(line)
    finally:
        os.chdir(before)


def lines(text: str) -> list[str]:
    """The commands of a block; a backslash joins lines."""
    return text.replace("\\\n", " ").splitlines()


def run_line(line: str) -> None:
    words = shlex.split(line, comments=True)
    if not words or words[0] in ELSEWHERE:
        return
    assert words[0] == "zeroconv", f"a page runs something else than zeroconv: {line}"
    result = CliRunner().invoke(app, shorter(words[1:]), catch_exceptions=False)
    assert result.exit_code == 0, f"{line}\n{result.output}"


def shorter(words: list[str]) -> list[str]:
    """The same command, with trainings of two steps on a few pictures, few pictures measured, and
    few steps of a small picture at the tiny base (its own size is 512).
    """
    if words[0] == "generate" and "my-sd15.safetensors" in words:
        return [*words, "--steps", "2", "--height", "128", "--width", "128"]
    if words[0] == "evaluate":
        return [*words, "--limit", "4", "--steps", "4"]
    if words[:2] == ["playroom", "render"]:
        return [*words, "--count", "6"]
    if words[0] != "train":
        return words
    settings = {
        "training.steps": "2",
        "training.warmup": "0",
        "training.batch_size": "2",
        "training.validate_every": "0",
        "training.sample_count": "0",
        "data.cache": "cache",
        "data.workers": "1",
    }
    if any("stickers" in word for word in words):
        settings["data.train"] = "stickers?split=train&limit=4"
        settings["data.validation"] = "stickers?split=test&limit=4"
    return [*words, *(word for pair in settings.items() for word in ("--set", "=".join(pair)))]


def test_readme_has_examples_of_both_kinds() -> None:
    commands = {
        words[1]
        for page, language, text in BLOCKS
        if language == "bash"
        for line in lines(text)
        if len(words := shlex.split(line, comments=True)) > 1 and words[0] == "zeroconv"
    }
    assert {"generate", "annotate", "train", "evaluate", "info", "playroom"} <= commands
    assert any(language == "python" for page, language, text in BLOCKS)


def test_readme_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 150


DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_docs_link_to_files_and_headings_that_exist(page: Path) -> None:
    """`[x](file.md#heading)`, with GitHub's names of headings."""
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", text)
    missing = [target for target, _ in links if target and not (page.parent / target).exists()]
    assert not missing

    for target, heading in links:
        if heading:
            other = page.parent / target if target else page
            assert heading in anchors(other.read_text(encoding="utf-8")), f"{target}#{heading}"


def anchors(text: str) -> set[str]:
    """GitHub's names of a page's headings: small letters, no punctuation, hyphens for spaces."""
    outside = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", outside, re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }


WRAPPED = [page for page in DOCS if page.name != "design.md"]


@pytest.mark.parametrize("page", WRAPPED, ids=lambda page: page.name)
def test_docs_are_wrapped_at_100(page: Path) -> None:
    """Tables, pictures and words that cannot be cut are left out."""
    text = page.read_text(encoding="utf-8")
    long = [
        line
        for line in text.splitlines()
        if len(line) > 100 and not line.startswith(("|", "![")) and " " in line[:100].strip()
    ]
    assert not long
