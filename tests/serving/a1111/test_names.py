"""A1111's names of samplers, schedules, modes, upscalers and models."""

from __future__ import annotations

import pytest

from zeroconv.errors import UserError
from zeroconv.generation.samplers.names import SAMPLERS, read_names
from zeroconv.generation.samplers.schedules import SCHEDULES
from zeroconv.serving.a1111 import names


def test_every_listed_sampler_can_be_asked_for_by_name_and_alias() -> None:
    asked = {}
    for sampler in names.samplers():
        for name in (sampler["name"], *sampler["aliases"]):
            asked[name] = names.sampler_of(name, "Automatic")[0]
    assert set(asked.values()) == set(SAMPLERS)


def test_every_pair_of_sampler_and_schedule_is_possible_or_noted() -> None:
    for sampler in names.samplers():
        for schedule in names.schedulers():
            for name in (schedule["name"], schedule["label"], schedule["label"].upper()):
                ours, chosen, notes = names.sampler_of(sampler["name"], name)
                assert read_names(ours, chosen) == (ours, chosen)
                possible = SCHEDULES[chosen].kind in SAMPLERS[ours].schedules if chosen else True
                assert possible
                if notes:
                    assert chosen is None


def test_a_schedule_that_a_sampler_cannot_have_is_left_out_with_a_note() -> None:
    sampler, schedule, notes = names.sampler_of("DDIM", "karras")
    assert (sampler, schedule) == ("ddim", None)
    assert "Karras" in notes[0] or "karras" in notes[0]


def test_a_sampler_named_with_its_schedule_keeps_it() -> None:
    assert names.sampler_of("DPM++ 2M Karras", "Automatic") == ("dpm++2m", "karras", [])


@pytest.mark.parametrize(("sampler", "schedule"), [("nope", "Automatic"), ("Euler", "nope")])
def test_an_unknown_sampler_or_schedule_is_refused(sampler: str, schedule: str) -> None:
    with pytest.raises(UserError, match="There is no schedule"):
        names.sampler_of(sampler, schedule)


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ("Balanced", "balanced"),
        ("My prompt is more important", "prompt"),
        ("ControlNet is more important", "control"),
        (0, "balanced"),
        (1, "prompt"),
        ("2", "control"),
        ("controlnet IS more important", "control"),
    ],
)
def test_control_modes_by_name_and_number(given: str | int, mode: str) -> None:
    assert names.control_mode_of(given) == mode


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ("Crop and Resize", "crop"),
        ("Just Resize", "stretch"),
        ("Resize and Fill", "fill"),
        ("Inner Fit (Scale to Fit)", "crop"),
        ("Scale to Fit (Inner Fit)", "crop"),
        ("Outer Fit (Shrink to Fit)", "fill"),
        ("Envelope (Outer Fit)", "fill"),
        (0, "stretch"),
        (1, "crop"),
        (2, "fill"),
    ],
)
def test_resize_modes_by_every_name(given: str | int, mode: str) -> None:
    assert names.resize_mode_of(given) == mode


@pytest.mark.parametrize(
    ("given", "passes"),
    [
        ("Both", "both"),
        ("Low res only", "low"),
        ("High res only", "high"),
        ("HiResFixOption.LOW_RES_ONLY", "low"),
    ],
)
def test_hr_option_chooses_the_passes(given: str, passes: str) -> None:
    assert names.passes_of(given) == passes


@pytest.mark.parametrize("value", ["", "nope", 3, -1, True])
def test_unknown_modes_are_refused(value: str | int) -> None:
    with pytest.raises(UserError):
        names.control_mode_of(value)
    with pytest.raises(UserError):
        names.resize_mode_of(value)
    with pytest.raises(UserError):
        names.passes_of(str(value))


def test_upscalers_are_those_that_are_listed() -> None:
    listed = [entry["name"] for entry in (*names.latent_modes(), *names.upscalers())]
    ours = {name: names.upscaler_of(name)[0] for name in listed}
    assert ours["Latent"] == ours["Latent (bicubic)"] == "latent"
    assert ours["Lanczos"] == ours["None"] == "lanczos"
    assert names.upscaler_of("Latent")[1] == []
    assert "bilinearly" in names.upscaler_of("Latent (nearest)")[1][0]
    with pytest.raises(UserError, match="R-ESRGAN"):
        names.upscaler_of("R-ESRGAN 4x+")


@pytest.mark.parametrize("title", ["canny", "Canny", "canny [0123abcd]", "canny.safetensors"])
def test_a_listed_model_by_its_titles(title: str) -> None:
    assert names.listed(title, ["depth", "canny"], "model") == "canny"


@pytest.mark.parametrize("title", ["", "cann", "/etc/passwd", "../canny", "canny/../depth"])
def test_a_model_that_is_not_listed_is_refused(title: str) -> None:
    with pytest.raises(UserError, match="there is no model"):
        names.listed(title, ["depth", "canny"], "model")
