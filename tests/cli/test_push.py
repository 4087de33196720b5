"""`zeroconv push`: what is uploaded, what its card says, and what is never sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from zeroconv.control.card import public


@pytest.fixture
def run_folder(models: Path, tmp_path: Path) -> Path:
    """A run that has ended, with local paths in its recipe."""
    import shutil

    run = tmp_path / "run"
    shutil.copytree(models / "canny", run / "control")
    recipe = {
        "out": str(run),
        "base": "/home/somebody/models/base",
        "device": "cpu",
        "data": {"train": "/home/somebody/pictures", "condition": "canny", "size": 64},
        "training": {"steps": 7},
    }
    (run / "recipe.json").write_text(json.dumps({"recipe": recipe}))
    summary = {"status": "finished", "steps": 7, "samples": 14, "minutes": 0.5}
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "samples").mkdir()
    for step, colour in ((3, "red"), (7, "blue")):
        picture = Image.new("RGB", (8, 8), colour)
        picture.save(run / "samples" / f"step-{step:08d}.png")
    return run


class FakeApi:
    """Writes down what it is asked for."""

    calls: list[tuple[str, dict[str, Any]]]

    def create_repo(self, name: str, **options: Any) -> None:
        self.calls.append(("create", {"name": name, **options}))

    def upload_folder(self, **options: Any) -> str:
        files = {p.name: p.read_bytes() for p in Path(options["folder_path"]).iterdir()}
        self.calls.append(("upload", {**options, "files": files}))
        return f"https://hub/{options['repo_id']}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    FakeApi.calls = []
    monkeypatch.setattr("huggingface_hub.HfApi", FakeApi)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    return FakeApi


def test_push_uploads_control_card_recipe_and_last_sample(
    zeroconv, run_folder: Path, tmp_path: Path, hub: type[FakeApi]
) -> None:
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"f1": 0.81, "lift": {"f1": 0.5, "name": "x"}, "good": True}))
    words = ("push", run_folder, "somebody/canny", "--figures", report, "--licence", "apache-2.0")
    result = zeroconv(*words, "--private", "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["uploaded"] == "https://hub/somebody/canny"

    (first, created), (second, sent) = hub.calls
    assert (first, created) == (
        "create",
        {"name": "somebody/canny", "private": True, "exist_ok": True},
    )
    assert second == "upload" and sent["repo_id"] == "somebody/canny"
    files = sent["files"]
    control = run_folder / "control"
    weights = "diffusion_pytorch_model.safetensors"
    assert files[weights] == (control / weights).read_bytes()
    assert files["samples.png"] == (run_folder / "samples" / "step-00000007.png").read_bytes()

    card = files["README.md"].decode()
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "apache-2.0" and "controlnet" in header["tags"]
    assert "| f1 | 0.81 |" in card and "| lift: f1 | 0.5 |" in card and "| steps | 7 |" in card
    assert "--control somebody/canny:picture.png" in card and "samples.png" in card


def test_push_sends_no_local_path_and_no_secret(
    zeroconv, run_folder: Path, hub: type[FakeApi]
) -> None:
    assert zeroconv("push", run_folder, "somebody/canny").exit_code == 0
    for name, content in hub.calls[1][1]["files"].items():
        if name.endswith((".md", ".json")) and not name.startswith("."):
            assert b"/home/somebody" not in content and b"hf_secret" not in content, name
            assert str(run_folder).encode() not in content, name


def test_push_without_a_token_writes_the_folder_and_refuses_in_one_sentence(
    zeroconv, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    result = zeroconv("push", run_folder, "somebody/canny")
    assert result.exit_code == 2
    assert "there is no token for the hub" in result.stderr and result.stderr.count("\n") == 1
    assert (run_folder.with_name("run-push") / "README.md").is_file()


@pytest.mark.parametrize("name", ["canny", "a/b/c", "../x", "a/..", "a b/c"])
def test_push_refuses_names_that_the_hub_has_not(zeroconv, run_folder: Path, name: str) -> None:
    result = zeroconv("push", run_folder, name)
    assert result.exit_code == 2 and "OWNER/NAME" in result.stderr
    assert not run_folder.with_name("run-push").exists()


def test_push_says_why_the_hub_refused(
    zeroconv, run_folder: Path, hub: type[FakeApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self, name: str, **options: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(FakeApi, "create_repo", refuse)
    result = zeroconv("push", run_folder, "somebody/canny")
    assert result.exit_code == 2 and "no route to host" in result.stderr


def test_push_of_a_run_that_goes_on_is_refused(zeroconv, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text("{}")
    result = zeroconv("push", tmp_path / "run", "a/b", "--no-upload")
    assert result.exit_code == 2 and "has not ended" in result.stderr


def test_public_keeps_names_and_drops_local_paths() -> None:
    values = {
        "base": "owner/name",
        "train": ["/data/a b/pictures", "~/x", "C:\\Users\\me\\cats", "playroom:train:500"],
        "size": 64,
    }
    assert public(values) == {
        "base": "owner/name",
        "train": ["pictures", "x", "cats", "playroom:train:500"],
        "size": 64,
    }
