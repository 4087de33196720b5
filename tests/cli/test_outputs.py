"""Outputs of commands: tried before any work, never an input, never somebody else's."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

from tests.cli.commands import Command, commands, make_inputs
from tests.helpers.full_disk import full_disk
from zeroconv.files import MANIFEST, is_ours

TRIED_HERE = (
    "evaluate",
    "evaluate to a page",
    "convert to diffusers",
    "convert to original",
    "transfer",
    "demo",
    "playroom render",
    "playroom fill50k",
    "playroom stickers",
    "playroom train-base",
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever takes long fails the test."""

    def work(*_, **__):
        raise AssertionError("the work began")

    for name in (
        "zeroconv.backbones.load_backbone",
        "zeroconv.control.transfer.load_backbone",
        "zeroconv.backbones.loading.locate.locate",
        "zeroconv.playroom.render_many",
        "zeroconv.playroom.fill50k.build_fill50k",
        "zeroconv.playroom.stickers.build_stickers",
        "zeroconv.scratch.stages.train_base",
    ):
        monkeypatch.setattr(name, work)


def wrong_outputs(command: Command, folder: Path) -> dict[str, str]:
    """Where it cannot be written → what the sentence says."""
    (folder / "file").write_text("x")
    (folder / "folder").mkdir()
    (folder / "folder" / "notes.txt").write_text("x")
    suffix = command.suffix
    wrong = {
        f"file/below{suffix}": "is a file and no folder",
        f"{'n' * 300}{suffix}": "too long",
        f"/proc/nowhere/x{suffix}": "cannot be written",
    }
    if command.kind == "file":
        os.mkdir(folder / f"f{suffix}")
        os.symlink(f"round{suffix}", folder / f"round{suffix}")
        return {**wrong, f"f{suffix}": "is a folder", f"round{suffix}": "circle"}
    return {**wrong, "file": "file", "folder": "notes.txt"}


@pytest.mark.parametrize("name", TRIED_HERE)
def test_an_output_is_tried_before_any_work(
    name: str, zeroconv, models: Path, inputs: Path, tmp_path: Path, no_work
) -> None:
    command = commands(models, inputs)[name]
    for target, sentence in wrong_outputs(command, tmp_path).items():
        result = zeroconv(*command.filled(tmp_path / target))
        assert result.exit_code == 2, (target, result.exception)
        (line,) = result.stderr.splitlines()
        assert sentence in line, (target, line)


def test_convert_leaves_its_input_and_a_full_folder(zeroconv, models: Path, tmp_path: Path) -> None:
    canny, one = models / "canny", tmp_path / "one.safetensors"
    assert zeroconv("convert", canny, one, "--to", "original").exit_code == 0
    assert is_ours(one)
    with safe_open(one, "pt") as file:
        assert json.loads(file.metadata()["zeroconv"])
    before = {path.name: path.read_bytes() for path in (*canny.iterdir(), one)}

    (tmp_path / "link").symlink_to(canny)
    for words in (
        ("convert", canny, canny),
        ("convert", canny, tmp_path / "link"),
        ("convert", canny / "diffusion_pytorch_model.safetensors", canny),
        ("convert", one, one, "--to", "original"),
        ("transfer", canny, "--from", models / "base", "--to", models / "base", "--out", canny),
    ):
        result = zeroconv(*words)
        assert result.exit_code == 2, words
        assert "input" in result.stderr
    assert {path.name: path.read_bytes() for path in (*canny.iterdir(), one)} == before

    # its own output is replaced
    assert zeroconv("convert", one, tmp_path / "out").exit_code == 0
    assert zeroconv("convert", one, tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / MANIFEST).is_file()
    one.write_bytes(b"a model of mine")
    result = zeroconv("convert", canny, one, "--to", "original")
    assert result.exit_code == 2 and "zeroconv did not write it" in result.stderr
    assert one.read_bytes() == b"a model of mine"


def test_shared_weights_are_input_too(models: Path, tmp_path: Path) -> None:
    from zeroconv.checkpoints.convert import convert
    from zeroconv.control import ControlNet
    from zeroconv.errors import UserError

    ControlNet.load(models / "canny").save(tmp_path / "shared")
    ControlNet.load(models / "depth").save(tmp_path / "own", shared=tmp_path / "shared")
    with pytest.raises(UserError, match="is the input itself"):
        convert(tmp_path / "own", tmp_path / "shared", "diffusers")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """`evaluate` without its work: it has measured something."""
    report = {"control": "canny", "prompts": "own", "n": {"own": 1}, "metrics": {}, "lift": {}}
    report |= {"pictures": {"fid": {"own": {"mean": 0.5, "low": 0.4, "high": 0.6}}}, "caption": {}}

    def evaluate(*_, pictures: list, prompts: str, **__) -> dict:
        pictures.append(None)
        return {**report, "prompts": prompts}

    monkeypatch.setattr("zeroconv.backbones.load_backbone", lambda *_, **__: None)
    monkeypatch.setattr("zeroconv.evaluation.evaluate", evaluate)
    monkeypatch.setattr("zeroconv.evaluation.page.write_page", lambda *_: "<!-- zeroconv -->")


def test_figures_are_shown_even_where_their_file_fails(zeroconv, measured, tmp_path: Path) -> None:
    with full_disk("report.json"):
        result = zeroconv("evaluate", "canny", "--json", tmp_path / "report.json")
    assert result.exit_code == 2 and "make room" in result.stderr
    assert "0.500" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_reports_are_written_after_every_setting(
    zeroconv, measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zeroconv import evaluation

    unchanged, calls = evaluation.evaluate, []

    def third_fails(*arguments, **options):
        calls.append(options["prompts"])
        if len(calls) == 3:
            raise RuntimeError("a fault")
        return unchanged(*arguments, **options)

    monkeypatch.setattr(evaluation, "evaluate", third_fails)
    target = tmp_path / "report.json"
    words = ("--prompts", "all", "--json", target, "--html", tmp_path / "page.html")
    result = zeroconv("evaluate", "canny", *words)
    assert result.exit_code == 1
    assert [report["prompts"] for report in json.loads(target.read_text())] == calls[:2]
    pages = sorted(path.name for path in tmp_path.glob("*.html"))
    assert pages == sorted(f"page-{name}.html" for name in calls[:2])


def test_report_goes_through_a_fifo_and_to_one_file(zeroconv, measured, tmp_path: Path) -> None:
    pipe, file = tmp_path / "pipe", tmp_path / "report"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        result = zeroconv("evaluate", "canny", "--prompts", "all", "--json", pipe)
        assert result.exit_code == 0, result.output
        assert len(json.loads(read.result(10))) == 4
    assert pipe.is_fifo()

    result = zeroconv("evaluate", "canny", "--json", file, "--html", file)
    assert result.exit_code == 2 and "a file of its own" in result.stderr
    result = zeroconv("evaluate", "canny", "--prompts", "all", "--html", "/dev/null")
    assert result.exit_code == 2 and "takes one page" in result.stderr
    assert not Path("/dev/null-own").exists() and not file.exists()


def test_changed_scenes_and_captions_are_not_drawn_over(zeroconv, tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    words = ("playroom", "render", scenes, "--count", 2, "--size", 64, "--workers", 1)
    for _ in range(2):
        assert zeroconv(*words).exit_code == 0
    picture, captions = scenes / "images" / "00001.png", scenes / "metadata.jsonl"
    drawn, written = picture.read_bytes(), captions.read_bytes()
    for path, before in ((picture, drawn), (captions, written)):
        path.write_bytes(b"mine")
        result = zeroconv(*words)
        assert result.exit_code == 2 and path.name in result.stderr, result.output
        assert path.read_bytes() == b"mine"
        path.write_bytes(before)
    assert zeroconv(*words).exit_code == 0


@pytest.mark.slow
def test_stdout_takes_the_output_alone(models: Path, inputs: Path, tmp_path: Path) -> None:
    """What is told beside a picture or a report goes to stderr."""
    photo, base = str(inputs / "photo.png"), ("--base", str(models / "base"), "--steps", "1")
    annotate = ("annotate", "canny", photo, "--out", "/dev/stdout")
    generate = ("generate", "a cat", *base, "--out", "/dev/stdout")
    for words in (annotate, generate):
        done = in_process(*words)
        assert done.returncode == 0, done.stderr
        assert Image.open(io.BytesIO(done.stdout)).format == "PNG"
        assert done.stdout.endswith(b"IEND\xaeB`\x82")
        assert b"/dev/stdout" in done.stderr
        both = in_process(*words, "--json")
        assert (both.returncode, both.stdout) == (2, b"")
        assert b"both go to stdout" in both.stderr

    evaluate = ("evaluate", str(models / "canny"), *base, "--limit", "2", "--json", "/dev/stdout")
    assert json.loads(in_process(*evaluate).stdout)["zeroconv"]


def in_process(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "zeroconv.cli", *words]
    return subprocess.run(command, capture_output=True, timeout=300)


def test_generate_writes_one_picture_through_a_pipe(zeroconv, models: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    words = ("generate", "a cat", "--base", models / "base", "--steps", 1)
    with ThreadPoolExecutor() as pool:
        read = pool.submit((tmp_path / "pipe").read_bytes)
        result = zeroconv(*words, "--out", tmp_path / "pipe")
        assert result.exit_code == 0, result.output
        assert Image.open(io.BytesIO(read.result(timeout=300))).format == "PNG"
    result = zeroconv(*words, "--count", 2, "--out", tmp_path / "pipe")
    assert result.exit_code == 2 and "takes one picture" in result.stderr
