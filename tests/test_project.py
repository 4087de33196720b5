"""The project as a whole: public names, quick start-up, pinned dependencies, files of a readable size."""

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


@pytest.mark.parametrize("module", ["zeroconv", "zeroconv.cli", "zeroconv.conditions", "zeroconv.playroom"])
def test_import_stays_light(module: str) -> None:
    """`zeroconv --help` answers at once, and the hints and the world need no model library."""
    heavy = "{'torch', 'diffusers', 'transformers'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_said_once() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", zeroconv.__version__)
    assert "version" in _pyproject()["project"]["dynamic"]


def test_every_direct_dependency_is_pinned() -> None:
    project = _pyproject()["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    names = {_normal(re.split(r"[<>=\[ ]", dependency)[0]) for dependency in wanted} - {"zeroconv"}
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    assert names <= {_normal(pin.split("==")[0]) for pin in pins}


def test_no_file_outgrows_a_reader() -> None:
    long = {  # tests are lists; they may be a little longer
        str(path.relative_to(ROOT)): lines
        for folder in ("zeroconv", "benchmarks", "experiments", "tests")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > (500 if folder == "tests" else 400)
    }
    assert not long


def _pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
