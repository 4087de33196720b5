"""A1111's requests in the words of our own."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from zeroconv.errors import UserError
from zeroconv.prompts import loras_of
from zeroconv.serving.a1111.hints import unit_with_hint
from zeroconv.serving.a1111.mapping import Known, Wanted, read_img2img, read_txt2img
from zeroconv.serving.a1111.schemas import Img2Img, Txt2Img
from zeroconv.serving.a1111.second_pass import factor_of
from zeroconv.serving.a1111.starting import fitted
from zeroconv.serving.a1111.units import decoder

KNOWN = Known({"playroom": 128, "other": 512}, ["canny"], ["paper"], {})
DECODE = decoder(1_000_000)
CHANCE = 77


def encoded(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def noise(size: tuple[int, int] = (96, 64)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def masked(size: tuple[int, int] = (96, 64)) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, (8, 8, 40, 40))
    return mask


def txt2img(known: Known = KNOWN, **fields) -> Wanted:
    return read_txt2img(Txt2Img.model_validate(fields), known, DECODE, CHANCE)


def img2img(**fields) -> Wanted:
    given = {"init_images": [encoded(noise())], "width": 96, "height": 64, **fields}
    return read_img2img(Img2Img.model_validate(given), KNOWN, DECODE, CHANCE)


def test_defaults_are_a1111s_and_the_size_is_the_bases_own() -> None:
    request = txt2img().request
    assert (request.steps, request.cfg, request.sampler, request.schedule) == (50, 7, "euler", None)
    assert (request.width, request.height, request.base) == (128, 128, "playroom")
    assert (request.seed, request.count, request.guidance) == (CHANCE, 1, "both")
    assert request.image is request.hires is request.eta is request.clip_skip is None


def test_null_is_the_default_and_unknown_fields_are_ignored() -> None:
    fields = dict.fromkeys(Txt2Img.model_fields)
    assert Txt2Img.model_validate({**fields, "comments": {}, "infotext": "x"}) == Txt2Img()


def test_batches_are_counted_together() -> None:
    request = txt2img(batch_size=2, n_iter=3, seed=5).request
    assert (request.count, request.seed) == (6, 5)


def test_sides_are_rounded_down_with_a_note() -> None:
    with pytest.warns(UserWarning, match="rounded to 128×96"):
        assert txt2img(width=130, height=97).size == (128, 96)


@pytest.mark.parametrize(
    "fields",
    [
        {"subseed_strength": 0.5},
        {"seed_resize_from_w": 64, "seed_resize_from_h": 64},
        {"restore_faces": True},
        {"tiling": True},
        {"s_churn": 1},
        {"script_name": "controlnet m2m"},
        {"override_settings": {"sd_vae": "other.pt"}},
        {"override_settings": {"sd_model_checkpoint": "../secret"}},
        {"override_settings": {"sd_model_checkpoint": 5}},
        {"override_settings": {"CLIP_stop_at_last_layers": 99}},
        {"override_settings": {"CLIP_stop_at_last_layers": "two"}},
        {"sampler_name": "nope"},
        {"prompt": "<lora:missing:1>"},
        {"enable_hr": True, "hr_upscaler": "ESRGAN_4x"},
        {"enable_hr": True, "hr_prompt": "another"},
        {"enable_hr": True, "hr_sampler_name": "DDIM"},
        {"enable_hr": True, "hr_resize_x": 256, "hr_resize_y": 128},
    ],
)
def test_what_changes_the_picture_and_is_not_here_is_refused(fields: dict) -> None:
    with pytest.raises(UserError):
        txt2img(**fields)


@pytest.mark.parametrize(
    "fields", [{"styles": ["oil"]}, {"s_noise": 1.1}, {"override_settings": {"eta_noise": 1}}]
)
def test_what_changes_little_is_left_out_with_a_note(fields: dict) -> None:
    with pytest.warns(UserWarning, match=r"not here|not read"):
        txt2img(**fields)


def test_overrides_and_options_choose_base_and_clip_skip() -> None:
    options = {"sd_model_checkpoint": "other", "CLIP_stop_at_last_layers": 3}
    known = Known(KNOWN.bases, KNOWN.controls, KNOWN.loras, options)
    wanted = txt2img(known)
    assert (wanted.request.base, wanted.request.clip_skip, wanted.skip) == ("other", 2, 3)
    assert wanted.size == (512, 512)
    overrides = {"sd_model_checkpoint": "PLAYROOM [0a1b]", "CLIP_stop_at_last_layers": 1}
    wanted = txt2img(known, override_settings=overrides)
    assert (wanted.request.base, wanted.request.clip_skip) == ("playroom", None)


def test_loras_of_the_prompt_by_their_listed_names() -> None:
    for tag in ("<lora:Paper:0.7>", "<lora: paper:0.7>", "<lyco:PAPER:0.7>", "<LoRA:paper:0.7>"):
        request = txt2img(prompt=f"a cat {tag} on {tag} Paper").request
        tags = loras_of(request.prompt)
        assert [(one.name, one.weight) for one in tags] == [("paper", 0.7)] * 2
        assert "Paper" in request.prompt and request.loras == []  # the tags are merged, once
    request = txt2img(prompt="a cat <lora:paper:1:0.5>").request
    assert loras_of(request.prompt)[0].weight == 0.5
    request = txt2img(prompt="a cat <lora:paper:0.7>", disable_extra_networks=True).request
    assert "lora" not in request.prompt and "a cat" in request.prompt


def test_eta_is_given_to_samplers_that_take_it() -> None:
    assert txt2img(eta=1.0, sampler_name="Euler a").request.eta == 1
    assert txt2img(eta=1.0, sampler_name="Euler").request.eta is None


# ---------------------------------------------------------------- the second pass


def test_a_second_pass() -> None:
    request = txt2img(
        enable_hr=True, hr_scale=1.5, hr_second_pass_steps=7, denoising_strength=0.4,
        hr_upscaler="Lanczos", hr_sampler_name="Use same sampler",
        hr_scheduler="Use same scheduler",
    ).request  # fmt: skip
    assert (request.hires, request.hires_steps, request.hires_strength) == (1.5, 7, 0.4)
    assert request.hires_upscaler == "lanczos"
    assert txt2img(enable_hr=True).hint_size == (256, 256)


def test_the_second_pass_by_its_size() -> None:
    assert factor_of((128, 96), (0, 0), 2.0) == 2
    assert factor_of((128, 96), (256, 0), 1.5) == 2
    assert factor_of((128, 96), (0, 192), 1.5) == 2
    assert factor_of((128, 96), (192, 144), 2.0) == 1.5
    wanted = txt2img(enable_hr=True, width=256, height=192, firstphase_width=128,
                     firstphase_height=96)  # fmt: skip
    assert wanted.size == (128, 96) and wanted.request.hires == 2


# ---------------------------------------------------------------- img2img


def test_a_picture_is_brought_to_the_size_by_its_resize_mode() -> None:
    request = img2img().request
    assert request.image is not None and request.strength == 0.75
    assert np.array_equal(np.asarray(request.image), np.asarray(noise()))
    for mode in range(4):
        made = img2img(width=64, height=64, resize_mode=mode).request.image
        assert made is not None and made.size == (64, 64)


def test_filling_keeps_the_picture_whole_and_masks_black_around() -> None:
    around = fitted(Image.new("RGB", (64, 32), "red"), (64, 64), "fill")
    assert around.getpixel((32, 32)) == (255, 0, 0) and around.getpixel((32, 0)) != (0, 0, 0)
    mask = fitted(Image.new("L", (64, 32), 255), (64, 64), "fill")
    assert mask.getpixel((32, 32)) == 255 and mask.getpixel((32, 0)) == 0


@pytest.mark.parametrize(("fill", "content"), [(0, "fill"), (1, "original"), (2, "noise")])
def test_a_mask_with_what_is_in_the_hole(fill: int, content: str) -> None:
    mask = encoded(masked())
    request = img2img(mask=mask, inpainting_fill=fill, inpaint_full_res_padding=12).request
    assert (request.masked_content, request.mask_blur) == (content, 4)
    assert request.only_masked and request.padding == 12
    assert request.mask is not None and request.mask.getpixel((20, 20)) == 255
    request = img2img(mask=mask, inpaint_full_res=False, mask_blur=2).request
    assert not request.only_masked and request.mask_blur == 2


def test_an_inverted_mask() -> None:
    request = img2img(mask=encoded(masked()), inpainting_mask_invert=1).request
    assert request.mask is not None
    assert request.mask.getpixel((20, 20)) == 0 and request.mask.getpixel((90, 60)) == 255


@pytest.mark.parametrize(
    "fields",
    [
        {"mask": encoded(masked()), "inpainting_fill": 3},
        {"mask": encoded(Image.new("L", (96, 64)))},
        {"init_images": [encoded(noise())] * 2},
        {"initial_noise_multiplier": 1.05},
        {"init_images": ["/etc/passwd"]},
        {"mask": "http://127.0.0.1/mask.png"},
    ],
)
def test_pictures_and_masks_that_cannot_be_used_are_refused(fields: dict) -> None:
    with pytest.raises(UserError):
        img2img(**fields)


# ---------------------------------------------------------------- units


def unit(**fields) -> dict:
    usual = {"enabled": True, "module": "canny", "model": "canny", "image": encoded(noise())}
    return {**usual, **fields}


def control(wanted: Wanted, **facts):
    given = {"condition": "canny", "union_kinds": None, **facts}
    return unit_with_hint(wanted.units[0], wanted, given, 64, 1_000_000)


def scripts(*units: dict) -> dict:
    return {"ControlNet": {"args": list(units)}}


def test_a_unit_becomes_a_control() -> None:
    wanted = txt2img(
        alwayson_scripts=scripts(
            unit(weight=0.5, guidance_start=0.2, guidance_end=0.8, control_mode=2,
                 hr_option="Low res only", resize_mode="Resize and Fill",
                 effective_region_mask=encoded(masked()), advanced_weighting=[0.5] * 13)
        )
    )  # fmt: skip
    made = control(wanted)
    assert (made.control, made.scale, made.start, made.end) == ("canny", 0.5, 0.2, 0.8)
    assert (made.mode, made.passes, made.resize) == ("control", "low", "fill")
    assert made.region is not None and made.connection_scales == [0.5] * 13
    assert made.hint is not None and made.hint.size == (128, 128)


def test_balanced_is_the_guidance_of_the_request() -> None:
    wanted = txt2img(alwayson_scripts=scripts(unit()))
    assert control(wanted).mode is None and wanted.request.guidance == "both"


def test_only_union_controls_have_a_kind() -> None:
    wanted = txt2img(alwayson_scripts=scripts(unit(union_control_type="Hard Edge")))
    assert control(wanted).kind is None
    assert control(wanted, union_kinds=["openpose"]).kind == "Hard Edge"


def test_a_unit_without_an_image_reads_the_picture_of_img2img() -> None:
    wanted = img2img(alwayson_scripts=scripts(unit(image="", pixel_perfect=True)))
    other = img2img(alwayson_scripts=scripts(unit(pixel_perfect=True)))
    assert np.array_equal(np.asarray(control(wanted).hint), np.asarray(control(other).hint))


def test_an_inpaint_unit_reads_the_mask_of_img2img() -> None:
    given = unit(module="inpaint_only", image=None)
    wanted = img2img(mask=encoded(masked()), alwayson_scripts=scripts(given))
    hint = control(wanted, condition="inpaint").hint
    assert hint is not None and hint.mode == "RGBA"
    assert hint.getpixel((20, 20))[3] == 0 and hint.getpixel((90, 60))[3] == 255


def test_with_only_masked_hints_show_the_whole_picture() -> None:
    wanted = img2img(width=64, height=64, mask=encoded(masked()), alwayson_scripts=scripts(unit()))
    hint = control(wanted).hint
    assert hint is not None and hint.size == (96, 64)
