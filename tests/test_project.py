"""The project as a whole: public names, quick start-up, pinned dependencies, files of a readable
size.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import zeroconv

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", zeroconv.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(zeroconv, name) is not None
    assert name in dir(zeroconv)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = zeroconv.nonsense


@pytest.mark.parametrize(
    "module",
    [
        "zeroconv",
        "zeroconv.cli",
        "zeroconv.conditions",
        "zeroconv.playroom",
        "zeroconv.data.annotating.run",
        "zeroconv.data.cache.drawing",
    ],
)
def test_import_stays_light(module: str) -> None:
    """`zeroconv --help` answers at once, and the hints and the world need no model library."""
    heavy = "{'torch', 'diffusers', 'transformers'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version_is_written_once() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", zeroconv.__version__)
    assert "version" in _pyproject()["project"]["dynamic"]


def test_every_direct_dependency_is_pinned() -> None:
    project = _pyproject()["project"]
    wanted = [
        *project["dependencies"],
        *(d for extra in project["optional-dependencies"].values() for d in extra),
    ]
    names = {_normal(re.split(r"[<>=\[ ]", dependency)[0]) for dependency in wanted} - {"zeroconv"}
    pins = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    assert names <= {_normal(pin.split("==")[0]) for pin in pins}


# advisories that a floor keeps out: the first version without them
LEAST = {
    "torch": "2.6",
    "transformers": "5.3",
    "pillow": "12.3",
    "opencv-python-headless": "4.8.1.78",
}


def test_floors_keep_out_versions_with_advisories() -> None:
    floors = {
        _normal(re.split(r"[<>=\[ ]", dependency)[0]): re.search(r">=([\d.]+)", dependency)[1]  # type: ignore[index]
        for dependency in _pyproject()["project"]["dependencies"]
    }
    for name, least in LEAST.items():
        assert _version(floors[name]) >= _version(least), name


def test_every_pin_satisfies_its_floor() -> None:
    project = _pyproject()["project"]
    wanted = [
        *project["dependencies"],
        *(d for extra in project["optional-dependencies"].values() for d in extra),
    ]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {_normal(name): version for name, version in pins.items()}
    for dependency in wanted:
        name = _normal(re.split(r"[<>=\[ ]", dependency)[0])
        if floor := re.search(r">=([\d.]+)", dependency):
            assert _version(pins[name]) >= _version(floor[1]), dependency


def test_nothing_from_a_hub_may_run_code() -> None:
    """Every call that makes transformers or torch read a model says so; TorchScript and plain
    pickles are not read.
    """
    for path in sorted((ROOT / "zeroconv").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert "jit.load" not in text and "trust_remote_code=True" not in text, path
        assert not re.search(
            r"\bpickle\.loads?\(|transformers\.pipeline\(|weights_only=False", text
        ), path
        for call in re.finditer(r"\.from_pretrained\(([^()]|\([^()]*\))*\)", text):
            assert "trust_remote_code=False" in call[0] or "**SAFE" in call[0], f"{path}: {call[0]}"
        for call in re.finditer(r"torch\.load\(([^()]|\([^()]*\))*\)", text):
            assert "weights_only=True" in call[0] or call[0].endswith(
                "`torch.load(weights_only=True)"
            ), f"{path}: {call[0]}"


def test_no_file_outgrows_a_reader() -> None:
    long = {  # tests are lists; they may be a little longer
        str(path.relative_to(ROOT)): lines
        for folder in ("zeroconv", "benchmarks", "experiments", "tests")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (lines := len(path.read_text(encoding="utf-8").splitlines()))
        > (500 if folder == "tests" else 480)
    }
    assert not long


def test_no_folder_of_the_package_outgrows_one_subject() -> None:
    """A folder that grows a second subject is split."""
    package = ROOT / "zeroconv"
    folders = [path.parent for path in package.rglob("__init__.py")]
    full = {
        str(folder.relative_to(ROOT)): count
        for folder in folders
        if (count := len([*folder.glob("*.py")])) > 22
    }
    assert not full


def _pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
