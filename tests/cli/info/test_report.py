from __future__ import annotations

import json
from pathlib import Path

from zeroconv.cli.info.report import _licence


def test_a_control_says_what_it_is(zeroconv, models: Path) -> None:
    (models / "canny" / "README.md").write_text(
        "# A tiny control\n\nLicence: MIT, made for tests.\n"
    )
    report = json.loads(zeroconv("info", models / "canny", "--json").stdout)
    assert report["kind"] == "control"
    assert report["condition"] == "canny"
    assert report["connections"][0] == {"name": "down.0", "channels": 16, "scale": 1}
    assert [c["name"] for c in report["connections"]][-1] == "mid"
    assert len(report["connections"]) == 13
    assert report["parameters"]["control"] > 10_000
    assert report["licence"] == "MIT, made for tests."


def test_the_licence_is_read_off_a_card_as_people_write_them() -> None:
    assert _licence("# X\n- **Licence:** MIT\n") == "MIT"
    assert _licence("license: apache-2.0\n") == "apache-2.0"
    assert (
        _licence("# X\n\n## Licences\n\nMIT, of\nthis project.\n\nArt: CC-BY.\n")
        == "MIT, of this project."
    )
    assert _licence("# X\nno word of it") is None


def test_a_base_says_what_it_is(zeroconv, models: Path) -> None:
    report = json.loads(zeroconv("info", models / "base", "--json").stdout)
    assert report["kind"] == "base"
    assert set(report["parameters"]) == {"unet", "vae", "text"}
    assert report["picture_size"] == 64
    assert report["prediction"] == "epsilon"
    assert len(report["connections"]) == 13


def test_a_person_gets_a_table(zeroconv, models: Path) -> None:
    text = zeroconv("info", models / "depth").stdout
    assert "condition" in text
    assert "depth" in text
    assert "down.0:16/1" in text


def test_conversion_there_and_back_is_exact(zeroconv, models: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    assert (
        zeroconv(
            "convert", models / "canny", tmp_path / "one.safetensors", "--to", "original"
        ).exit_code
        == 0
    )
    assert zeroconv("convert", tmp_path / "one.safetensors", tmp_path / "back").exit_code == 0
    name = "diffusion_pytorch_model.safetensors"
    before, after = load_file(models / "canny" / name), load_file(tmp_path / "back" / name)
    assert before.keys() == after.keys()
    assert all((before[key] == after[key]).all() for key in before)
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["zeroconv"]["condition"] == "canny"


def test_a_condition_says_what_it_is_and_under_which_licence(zeroconv) -> None:
    report = json.loads(zeroconv("info", "softedge_hed", "--json").stdout)
    assert (report["name"], report["kind"], report["without_weights"]) == (
        "softedge",
        "condition",
        True,
    )
    assert "MIT" in report["networks"]["hed"]
    assert json.loads(zeroconv("info", "posenet", "--json").stdout)["name"] == "pose"
    shown = zeroconv("info", "depth")
    assert shown.exit_code == 0 and "Apache-2.0" in shown.stdout


def test_a_name_with_brackets_is_no_markup(zeroconv, models, tmp_path) -> None:
    folder = tmp_path / "[bold]x[" / "b]"
    folder.parent.mkdir()
    folder.symlink_to(models / "canny")
    result = zeroconv("info", folder)
    assert result.exit_code == 0, result.output
    assert "[bold]x[" in result.stdout.replace("\n", "")
