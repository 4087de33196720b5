"""Preprocessors by A1111's names: which there are, their sliders, thresholds out of range."""

from __future__ import annotations

from pathlib import Path

import pytest

from zeroconv.conditions import CONDITIONS
from zeroconv.errors import UserError
from zeroconv.serving.a1111 import modules as listed
from zeroconv.serving.a1111.modules import SLIDERS, control_types, find_module, modules


@pytest.fixture(autouse=True)
def _no_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No annotators' weights are on the machine."""
    monkeypatch.setenv("ZEROCONV_ANNOTATORS", str(tmp_path))
    fetched = listed._fetched
    fetched.cache_clear()
    yield
    fetched.cache_clear()


def test_modules_are_those_that_can_be_drawn_without_weights() -> None:
    able = modules()
    assert next(iter(able)) == "none"
    assert {"canny", "mlsd", "softedge_hed", "scribble_pidinet", "inpaint_only"} <= set(able)
    assert not {"depth_midas", "openpose", "reference_only", "ip-adapter_clip_h"} & set(able)
    for module in able.values():
        drawn = module.condition is None or CONDITIONS[module.condition].draw is not None
        assert drawn, module.name


def test_pose_modules_are_listed_where_their_networks_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listed, "_fetched", lambda network: network == "posenet")
    assert "openpose" in modules() and "openpose_full" not in modules()
    monkeypatch.setattr(listed, "_fetched", lambda network: True)
    assert {"openpose_full", "dw_openpose_full", "person"} <= set(modules())


def test_modules_are_known_in_any_case() -> None:
    module = find_module(" Canny ")
    assert module is not None and module.name == "canny"
    assert find_module("None") == modules()["none"]
    assert find_module("depth_midas") is None


def test_canny_has_a_resolution_and_two_thresholds_in_order() -> None:
    detail = modules()["canny"].detail(512)
    assert detail["model_free"] is False
    assert [slider["name"] for slider in detail["sliders"]] == [
        "Resolution",
        "Low Threshold",
        "High Threshold",
    ]
    assert [slider["value"] for slider in detail["sliders"]] == [512, 100, 200]
    assert all(set(s) == {"name", "value", "min", "max", "step"} for s in detail["sliders"])


@pytest.mark.parametrize(
    ("a", "b", "low", "high"),
    [
        (-1, -1, 100, 200),
        (64, 64, 64, 64),
        (0, 300, 100, 200),
        (150, -1, 150, 200),
        (220, 50, 50, 220),
        (1e9, float("-inf"), 100, 200),
    ],
)
def test_thresholds_out_of_range_are_the_modules_own(a, b, low, high) -> None:
    assert modules()["canny"].parameters(a, b, 512) == {"low": low, "high": high}


@pytest.mark.parametrize("asked", [-1, 0, 63, 2049, 1e12])
def test_a_resolution_out_of_range_is_the_default(asked: float) -> None:
    assert modules()["canny"].resolution(asked, 512) == 512
    assert modules()["canny"].resolution(256, 512) == 256


def test_every_slider_sets_a_parameter_within_its_range() -> None:
    from zeroconv.conditions.parameters import check

    for name, sliders in SLIDERS.items():
        module = modules()[name]
        draw = CONDITIONS[module.condition or ""].draw
        assert draw is not None
        for slider in sliders:
            for value in (slider.least, slider.value, slider.most, -1):
                check(name, module.parameters(value, value, 512), draw)


def test_control_types_name_the_modules_and_models_of_each_tag() -> None:
    types = control_types({"canny": "canny", "soft": "softedge", "other": None})
    assert types["All"]["model_list"] == ["None", "canny", "soft", "other"]
    assert types["Canny"] == {
        "module_list": ["none", "canny"],
        "model_list": ["None", "canny"],
        "default_option": "canny",
        "default_model": "canny",
    }
    assert types["SoftEdge"]["default_option"] == "softedge_pidinet"
    assert types["SoftEdge"]["default_model"] == "soft"
    assert types["Depth"]["module_list"] == ["none"]
    for entry in types.values():
        assert entry["default_option"] in entry["module_list"]
        assert entry["default_model"] in entry["model_list"]


def test_the_kind_of_a_union_control_is_named_or_the_modules() -> None:
    canny = modules()["canny"]
    for name in ("OpenPose", "Depth", "Soft Edge", "Hard Edge", "Normal Map", "Segmentation"):
        assert listed.union_kind_of(name, canny) == name
    assert listed.union_kind_of("Unknown", canny) == "canny"
    assert listed.union_kind_of("Unknown", modules()["none"]) is None
    with pytest.raises(UserError, match="union_control_type"):
        listed.union_kind_of("Nonsense", canny)
