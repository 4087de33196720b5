"""A1111's text: written for its reader, read as far as there are options; never a traceback."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroconv.errors import UserError
from zeroconv.generation.metadata.infotext import (
    SAMPLERS,
    SCHEDULES,
    parameters_text,
    read_parameters,
    split_settings,
)
from zeroconv.generation.samplers.names import SAMPLERS as OURS
from zeroconv.generation.samplers.names import read_names

# as A1111 1.10 writes it, with its ControlNet extension
THEIRS = """a (red:1.2) ball,
on grass <lora:style:0.8>
Negative prompt: blur, low quality
Steps: 25, Sampler: DPM++ 2M SDE, Schedule type: Karras, CFG scale: 6.5, Seed: 123456, \
Size: 512x768, Model hash: 6ce0161689, Model: v1-5-pruned, VAE: vae.pt, Clip skip: 2, \
ControlNet 0: "Module: canny, Model: control_v11p_sd15_canny [d14c016b], Weight: 1.0, \
Guidance Start: 0.0", Lora hashes: "style: 0123456789ab", RNG: CPU, Version: v1.10.1"""


def test_a1111_text_is_read_and_what_is_not_is_said() -> None:
    reading = read_parameters(THEIRS)
    assert reading.values == {
        "prompt": ["a (red:1.2) ball,\non grass <lora:style:0.8>"],
        "negative": "blur, low quality",
        "steps": 25,
        "scheduler": "dpm++2m_sde",
        "schedule": "karras",
        "cfg": 6.5,
        "seed": 123456,
        "width": 512,
        "height": 768,
        "clip_skip": 1,
        "noise": "cpu",
    }
    notes = "; ".join(reading.notes)
    for part in ("v1-5-pruned", "vae.pt", "ControlNet 0", "Lora hashes"):
        assert part in notes


def test_a1111_default_noise_is_a_card_s() -> None:
    assert read_parameters("x\nSteps: 2, Seed: 1, Size: 8x8").values["noise"] == "gpu"


def test_a1111_sampler_is_kept_where_its_schedule_is_not_known() -> None:
    reading = read_parameters("x\nSteps: 2, Sampler: Euler a, Schedule type: Weird, Seed: 1")
    assert reading.values["scheduler"] == "euler_a"
    assert "Schedule type (Weird)" in reading.notes[0]


@pytest.mark.parametrize(
    ("upscaler", "taken"),
    [("Latent", "latent"), ("Latent (nearest-exact)", "latent"), ("R-ESRGAN 4x+", "lanczos")],
)
def test_a1111_upscaler_is_read_or_noted(upscaler: str, taken: str) -> None:
    text = f"x\nSteps: 9, Seed: 1, Hires upscale: 2, Hires upscaler: {upscaler}"
    reading = read_parameters(text)
    assert reading.values["hires_upscaler"] == taken
    assert bool(reading.notes) == (upscaler != "Latent")


def test_a1111_text_of_a_prompt_alone() -> None:
    assert read_parameters("a ball: red, cube: blue").values["prompt"] == [
        "a ball: red, cube: blue"
    ]


@pytest.mark.parametrize("sampler", OURS)
@pytest.mark.parametrize("schedule", [None, *SCHEDULES])
def test_a1111_names_come_back(sampler: str, schedule: str | None) -> None:
    try:
        read_names(sampler, schedule)
    except UserError:
        return
    about = {"prompt": "a", "negative": "b", "steps": 7, "cfg": 4.5, "seed": 3, "noise": "gpu"}
    about |= {"scheduler": sampler, "schedule": schedule, "width": 64, "height": 32}
    about |= {"base": 'a, "b"', "clip_skip": 2, "eta": 0.5}
    text = parameters_text(about)
    assert f"Sampler: {SAMPLERS[sampler]}," in text
    values = read_parameters(text).values
    assert values.pop("prompt") == ["a"]
    assert values.pop("schedule") == schedule
    assert values == {k: v for k, v in about.items() if k in values}
    assert set(values) >= {"steps", "cfg", "seed", "noise", "width", "height", "clip_skip", "eta"}


def test_a1111_settings_in_quotes_hold_commas_and_quotes() -> None:
    assert split_settings(r'A: "x, \"y\": z", B: 2, C:') == {"A": 'x, "y": z', "B": "2", "C": ""}


@settings(max_examples=150, deadline=None)
@given(st.text() | st.text(alphabet='Steps: 20,"\\\nNegative prompt'), st.text())
def test_a1111_text_of_any_kind_is_read(first: str, last: str) -> None:
    for text in (
        first,
        f"{first}\nSteps: {last}, Seed: {last}, Size: {last}x{last}",
        THEIRS + last,
    ):
        try:
            values = read_parameters(text).values
        except UserError:
            continue
        assert isinstance(values["prompt"], list)
    with pytest.raises(UserError, match="characters"):
        read_parameters("x" * 1_000_001)
