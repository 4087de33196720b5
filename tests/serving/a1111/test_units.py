"""ControlNet units: their defaults, old names, forms of pictures, and the hints they ask for."""

from __future__ import annotations

import base64
import io
import warnings

import numpy as np
import pytest
from PIL import Image, ImageDraw

from zeroconv.annotators import annotate
from zeroconv.errors import UserError
from zeroconv.serving.a1111.modules import modules
from zeroconv.serving.a1111.schemas import Script, Unit
from zeroconv.serving.a1111.units import (
    Asked,
    decoder,
    hint_of,
    holed,
    perfect,
    read_unit,
    scaled_to,
    units_of,
)

MOST = 1_000_000  # pixels
DECODE = decoder(MOST)


def encoded(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def disc(size: tuple[int, int] = (96, 64)) -> Image.Image:
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).ellipse((20, 10, 60, 50), fill="navy")
    return image


def asked(starts: bool = False, **fields) -> Asked:
    given = {"model": "canny", "image": encoded(disc()), **fields}
    return read_unit(Unit.model_validate(given), 0, ["canny", "tile"], DECODE, starts)


def test_defaults_are_those_of_the_extension() -> None:
    unit = Unit()
    assert not unit.enabled and unit.module == "none" and unit.model == "None"
    assert unit.weight == 1 and (unit.guidance_start, unit.guidance_end) == (0, 1)
    assert (unit.processor_res, unit.threshold_a, unit.threshold_b) == (-1, -1, -1)
    assert unit.control_mode == "Balanced" and unit.resize_mode == "Crop and Resize"
    assert unit.hr_option == "Both" and unit.save_detected_map and not unit.pixel_perfect
    assert unit.image is unit.mask is unit.advanced_weighting is unit.effective_region_mask is None
    assert unit.union_control_type == "Unknown"


def test_null_is_the_default_and_unknown_fields_are_ignored() -> None:
    fields = dict.fromkeys(Unit.model_fields)
    assert Unit.model_validate({**fields, "is_ui": True, "pulid_mode": "Fidelity"}) == Unit()


def test_old_names_stand_for_the_new_ones() -> None:
    unit = Unit.model_validate(
        {"guidance": 0.5, "lowvram": True, "input_image": "a", "mask_image": "b"}
    )
    assert (unit.guidance_end, unit.low_vram, unit.image, unit.mask) == (0.5, True, "a", "b")
    both = Unit.model_validate({"guidance": 0.5, "guidance_end": 0.75})
    assert both.guidance_end == 0.75


def test_a_control_mode_may_be_a_list_of_one() -> None:
    assert asked(control_mode=["My prompt is more important"]).mode == "prompt"
    assert asked(control_mode=2).mode == "control"


@pytest.mark.parametrize("name", ["controlnet", "ControlNet", "controlNet", "CONTROLNET"])
def test_the_scripts_name_is_known_in_any_case(name: str) -> None:
    args = [{"enabled": True}, {"enabled": False}, {}]
    assert len(units_of({name: Script(args=args)})) == 1


def test_other_scripts_and_units_that_are_none_are_refused() -> None:
    with pytest.raises(UserError, match="always on script ADetailer not found"):
        units_of({"ADetailer": Script(args=[False])})
    with pytest.raises(UserError, match="unit 1 is no object"):
        units_of({"controlnet": Script(args=[{}, "unit"])})
    with pytest.raises(UserError, match="unit 0, weight"):
        units_of({"controlnet": Script(args=[{"enabled": True, "weight": 2.5}])})


def test_a_unit_that_is_not_enabled_is_not_read() -> None:
    assert units_of({"controlnet": Script(args=[{"weight": "much"}])}) == []


@pytest.mark.parametrize("form", ["text", "data", "dict", "list"])
def test_pictures_in_every_form(form: str) -> None:
    picture, mask = disc(), Image.new("L", (96, 64))
    mask.paste(255, (10, 10, 30, 30))
    one, two = encoded(picture), encoded(mask)
    image = {
        "text": one,
        "data": f"data:image/png;base64,{one}",
        "dict": {"image": one, "mask": two},
        "list": [one, two],
    }[form]
    more = {} if form in ("dict", "list") else {"mask": two}
    unit = asked(image=image, module="inpaint_only", **more)
    assert unit.image is not None and unit.mask is not None
    assert np.array_equal(np.asarray(unit.image), np.asarray(picture))
    assert np.array_equal(np.asarray(unit.mask), np.asarray(mask))


@pytest.mark.parametrize("image", ["", None])
def test_no_image_is_that_of_img2img_or_refused(image: str | None) -> None:
    assert asked(image=image, starts=True).image is None
    with pytest.raises(UserError, match="has no image"):
        asked(image=image)


@pytest.mark.parametrize(
    "image", ["/etc/passwd", "C:\\picture.png", "http://127.0.0.1/a.png", "file:///etc/passwd"]
)
def test_paths_and_addresses_are_not_opened(image: str) -> None:
    with pytest.raises(UserError, match=r"not opened|no picture"):
        asked(image=image)


def test_a_pickled_input_is_refused_unread() -> None:
    with pytest.raises(UserError, match="ipadapter_input is never read"):
        asked(ipadapter_input="gASVBAAAAAAAAAA=")


def test_modules_and_models_that_are_not_there_are_refused() -> None:
    with pytest.raises(UserError, match="Module not available"):
        asked(module="depth_midas")
    with pytest.raises(UserError, match="no model is chosen"):
        asked(model="None")
    with pytest.raises(UserError, match="there is no ControlNet model"):
        asked(model="control_v11p_sd15_openpose [cab727d4]")


def test_a_painted_mask_is_the_hint_itself_as_in_a1111() -> None:
    mask = Image.new("L", (96, 64))
    mask.paste(255, (10, 10, 30, 30))
    with pytest.warns(UserWarning, match="its mask is taken as its hint"):
        unit = asked(module="canny", mask=encoded(mask))
    hint = hint_of(unit, (96, 64), "canny", 64, MOST)
    assert np.array_equal(np.asarray(hint)[..., 0], np.asarray(mask))
    for nothing in (Image.new("L", (96, 64)), Image.new("L", (96, 64), 255)):
        assert asked(module="canny", mask=encoded(nothing)).module.name == "canny"


# ---------------------------------------------------------------- hints


def test_a_finished_hint_is_taken_as_it_is() -> None:
    drawn = annotate("canny", disc())
    hint = hint_of(asked(image=encoded(drawn)), drawn.size, "canny", 512, MOST)
    assert np.array_equal(np.asarray(hint), np.asarray(drawn))


def test_a_module_reads_the_image_at_its_resolution() -> None:
    unit = asked(module="canny", processor_res=128, resize_mode="Just Resize")
    hint = hint_of(unit, (192, 128), "canny", 64, MOST)
    expected = annotate("canny", disc().resize((192, 128), Image.Resampling.LANCZOS))
    assert np.array_equal(np.asarray(hint), np.asarray(expected))


def test_pixel_perfect_reads_it_at_the_size_of_the_result() -> None:
    unit = asked(module="canny", pixel_perfect=True, processor_res=512)
    hint = hint_of(unit, (192, 128), "canny", 64, MOST)
    expected = annotate("canny", disc().resize((192, 128), Image.Resampling.LANCZOS))
    assert np.array_equal(np.asarray(hint), np.asarray(expected))


def test_perfect_resolution_by_the_resize_mode() -> None:
    assert perfect((100, 50), (200, 200), "crop") == 200
    assert perfect((100, 50), (200, 200), "fill") == 100


@pytest.mark.parametrize("mode", ["Crop and Resize", "Just Resize", "Resize and Fill"])
def test_every_resize_mode_gives_a_hint_of_the_size(mode: str) -> None:
    for module in ("none", "canny", "softedge_pidinet"):
        unit = asked(module=module, resize_mode=mode)
        assert hint_of(unit, (64, 96), "canny", 64, MOST).size == (64, 96)


def test_every_module_draws_a_hint() -> None:
    mask = Image.new("L", (96, 64))
    mask.paste(255, (10, 10, 30, 30))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, module in modules().items():
            if module.condition in ("pose", "person"):
                continue
            more = {"mask": encoded(mask)} if module.condition == "inpaint" else {}
            unit = asked(module=name, threshold_a=64, threshold_b=64, processor_res=64, **more)
            assert hint_of(unit, (64, 64), None, 64, MOST).size == (64, 64), name


def test_an_inpaint_hint_is_transparent_in_the_mask() -> None:
    mask = Image.new("L", (48, 32))
    mask.paste(255, (0, 0, 24, 32))
    hint = holed(disc(), mask)
    alpha = np.asarray(hint.getchannel("A"))
    assert (alpha[:, :46] == 0).all() and (alpha[:, 50:] == 255).all()
    with pytest.raises(UserError, match="needs a mask"):
        holed(disc(), None)


def test_a_long_strip_is_refused_before_it_is_scaled() -> None:
    with pytest.raises(UserError, match="would be read at"):
        scaled_to(Image.new("RGB", (20_000, 2)), 512, MOST)
