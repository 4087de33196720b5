"""Other programs' names for preprocessors: each stands for a condition, or is refused in a sentence
that names what there is instead."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

from zeroconv.conditions import CONDITIONS, annotate, find, known, to_draw
from zeroconv.conditions.names import A1111, COMFYUI, PREPROCESSORS
from zeroconv.errors import UserError

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8))

# what is drawn here by the method of that name, or needs a --backend that names its own network
SAME = {
    *("canny", "invert", "invert (from white bg & black line)", "threshold", "shuffle"),
    *("tile_resample", "blur_gaussian", "color", "t2ia_color_grid"),
    *("inpaint", "inpaint_global_harmonious"),
    *("depth", "depth_midas", "depth_leres", "depth_leres++", "depth_zoe"),
    *("depth_anything", "depth_anything_v2"),
    *("normal_bae", "normal_map", "normal_midas", "normal_dsine"),
    *("segmentation", "seg_ufade20k", "oneformer_ade20k", "seg_ofade20k"),
}
REFUSED = {
    *("none", "depth_hand_refiner", "animal_openpose", "mediapipe_face", "facexlib"),
    *("densepose", "densepose_parula", "densepose (pruple bg & purple torso)"),
    "densepose_parula (black bg & blue torso)",
    *("anime_face_segment", "seg_anime_face", "mobile_sam", "clip_vision"),
    *("t2ia_style_clipvision", "revision_clipvision", "revision_ignore_prompt"),
    *("ip-adapter-auto", "ip-adapter_clip_sd15", "ip-adapter_clip_h", "ip-adapter_clip_sdxl"),
    *("ip-adapter_clip_g", "ip-adapter_clip_sdxl_plus_vith", "ip-adapter_face_id"),
    *("ip-adapter_face_id_plus", "ip-adapter_pulid", "instant_id_face_embedding"),
    *("instant_id_face_keypoints", "reference_only", "reference_adain", "reference_adain+attn"),
}


def test_names_of_a1111_are_the_same_or_noted_or_refused() -> None:
    assert len(A1111) >= 85 and set(A1111) >= SAME | REFUSED
    for name, entry in A1111.items():
        assert (entry.condition is None) == (name in REFUSED), name
        if name not in REFUSED:
            assert bool(entry.note) == (name not in SAME), name


@pytest.mark.parametrize("name", [*A1111, *COMFYUI])
def test_a_preprocessors_name_is_drawn_or_refused_in_one_sentence(name: str) -> None:
    entry = PREPROCESSORS[name.lower()]
    for spelled in (name, name.upper()):
        if entry.condition is None and name not in CONDITIONS:
            assert known(spelled) is None
            with pytest.raises(UserError) as refused:
                find(spelled)
            sentence = str(refused.value)
            assert sentence.startswith(f"{spelled} cannot be drawn here: ")
            assert sentence.count(". ") == 0 and sentence.endswith(".") and len(sentence) < 250
            continue
        assert find(spelled) is CONDITIONS[entry.condition] is known(spelled)
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            condition, settings = to_draw(spelled)
        noted = bool(entry.note) and name.lower() not in CONDITIONS
        assert len(notes) == noted
        assert all(str(note.message).startswith(f"{spelled} is drawn as ") for note in notes)
        assert set(settings) <= {*condition.defaults, *condition.settings}


@pytest.mark.parametrize("name", [*A1111, *COMFYUI])
def test_a_preprocessors_name_gives_the_conditions_hint(name: str) -> None:
    entry = PREPROCESSORS[name.lower()]
    if entry.condition is None or CONDITIONS[entry.condition].draw is None:
        return
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        drawn = annotate(name, PICTURE)
    assert drawn.tobytes() == annotate(entry.condition, PICTURE, **entry.settings).tobytes()


def test_current_condition_names_cause_no_note() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for condition in CONDITIONS.values():
            for name in (condition.name, *condition.aliases):
                assert to_draw(name) == (condition, {})
        assert to_draw("openpose_full", quiet=True)[1] == {"body": 1, "hands": 1, "face": 1}


def test_invert_turns_levels_round_and_threshold_parts_them() -> None:
    pixels = np.array([[[0, 10, 255], [128, 128, 128], [127, 255, 255]]], np.uint8)
    inverted = np.asarray(annotate("invert", Image.fromarray(pixels)))
    assert (inverted == 255 - pixels).all()
    parted = np.asarray(annotate("threshold", Image.fromarray(pixels)))[0, :, 0]
    assert parted.tolist() == [0, 255, 0]  # all three channels above 127
    lower = np.asarray(annotate("threshold", Image.fromarray(pixels), level=126))[0, :, 0]
    assert lower.tolist() == [0, 255, 255]
