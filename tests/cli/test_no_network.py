"""No command reaches for the network on embedded models and data of one's own."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.cli.commands import OUT, Command, commands, make_inputs
from tests.helpers.no_network import blocked

# what the tiny models do not show: the models and data in the package
ONE = ("--workers", "1")
DRAW = ("annotate", "canny,depth,pose", "playroom:train:2", *OUT, *ONE)
MAKE = ("generate", "a cat", "--control", "canny:{photo}", "--steps", "1", *OUT)
MEASURE = ("evaluate", "depth", "--limit", "2", "--steps", "1", "--json", "{out}")
EMBEDDED = {
    "generate embedded": Command(MAKE, "file", ".png"),
    "annotate embedded": Command(DRAW, "into"),
    "evaluate embedded": Command(MEASURE, "file", ".json"),
    "info of a base": Command(("info", "playroom")),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a user who has said nothing of being offline: a hub that is asked would be tried."""
    import huggingface_hub.constants

    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


NAMES = [*commands(Path("models"), Path("/tmp")), *EMBEDDED]
SLOW = pytest.mark.slow
LISTED = [pytest.param(name, marks=SLOW) if name == "demo" else name for name in NAMES]


@pytest.mark.parametrize("name", LISTED)
def test_a_command_reaches_for_no_network(
    name: str, zeroconv, models: Path, inputs: Path, online, tmp_path: Path
) -> None:
    command = {**commands(models, inputs), **EMBEDDED}[name]
    words = command.filled(tmp_path / f"new{command.suffix}")
    words = [word.replace("{photo}", str(inputs / "photo.png")) for word in words]
    with blocked(tmp_path) as attempts:
        result = zeroconv(*words)
    assert result.exit_code == command.code, result.output
    assert not attempts.exists(), attempts.read_text()


def test_the_block_holds_here_and_in_children(tmp_path: Path) -> None:
    code = "import urllib.request as u\ntry: u.urlopen('http://example.com', timeout=3)\n"
    code += "except OSError: print('no')"
    with blocked(tmp_path) as attempts:
        with pytest.raises(OSError, match="blocked"):
            urllib.request.urlopen("http://example.com", timeout=3)
        with pytest.raises(OSError, match="blocked"), socket.socket() as one:
            one.connect(("127.0.0.1", 9))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        lines = attempts.read_text().splitlines()
    assert done.stdout == "no\n", done.stderr
    assert len(lines) >= 3
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
