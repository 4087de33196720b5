"""Alpha by role: on white, on black, a hole, where a mask acts; the same from every side."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pictures.test_modes import quiet, saved
from tests.pictures.writing import png
from zeroconv.conditions import CONDITIONS, annotate, maps, open_hint, resize_hint
from zeroconv.data.pictures import read_hint
from zeroconv.errors import UserError
from zeroconv.generation.hints import hint_tensor, mask_tensor
from zeroconv.pictures import open_mask, open_picture

SIZE = 48
LINE = np.zeros((SIZE, SIZE), bool)
LINE[20:24] = True
STROKES = ("canny", "lines", "softedge", "scribble", "lineart")


def layer(shown: np.ndarray, colour: tuple[int, int, int], below: int = 0) -> np.ndarray:
    """(H, W, 4): `colour` where shown, else transparent over hidden pixels of the level `below`."""
    rgba = np.full((SIZE, SIZE, 4), below, np.uint8)
    rgba[..., 3] = np.where(shown, 255, 0)
    rgba[shown, :3] = colour
    return rgba


def layers(rgba: np.ndarray) -> dict[str, bytes]:
    """The same transparent picture in every way that a file has to say so."""
    image = Image.fromarray(rgba)
    shown = rgba[..., 3] > 0
    grey = bool((rgba[shown][:, :1] == rgba[shown][:, :3]).all())
    colour = rgba[shown][0, :3]
    files = {
        "RGBA PNG": saved(image, "PNG"),
        "RGBA WebP": saved(image, "WEBP", lossless=True, exact=True),
        "RGBA TIFF": saved(image, "TIFF"),
        "RGBA AVIF": saved(image, "AVIF", quality=100, subsampling="4:4:4"),
        "RGBA PNG of 16 bits": png(rgba.astype(np.uint16) * 257, 16, 6),
    }
    index = np.where(shown, 1, 0).astype(np.uint8)
    palette = bytes((9, 9, 9)) + bytes(colour.tolist())
    files["P PNG with one key"] = png(index, 8, 3, PLTE=palette, tRNS=b"\x00")
    files["P PNG with alphas"] = png(index, 4, 3, PLTE=palette, tRNS=b"\x00\xff")
    keyed = np.where(shown[..., None], colour, np.array((7, 8, 9))).astype(np.uint16)
    files["RGB PNG with a key"] = png(keyed, 8, 2, tRNS=bytes((0, 7, 0, 8, 0, 9)))
    files["RGB PNG of 16 bits with a key"] = png(keyed * 257, 16, 2, tRNS=bytes((7, 7, 8, 8, 9, 9)))
    files["GIF"] = saved(Image.open(io.BytesIO(files["P PNG with one key"])), "GIF", transparency=0)
    if grey:
        level = int(colour[0])
        numbers = np.where(shown, level, 64).astype(np.uint16)
        files["LA PNG"] = saved(image.convert("LA"), "PNG")
        files["L PNG with a key"] = png(numbers, 8, 0, tRNS=bytes((0, 64)))
        files["I;16 PNG with a key"] = png(numbers * 257, 16, 0, tRNS=bytes((64, 64)))
        files["L PNG of 4 bits with a key"] = png(
            np.where(shown, level // 17, 5), 4, 0, tRNS=bytes((0, 5))
        )
    return files


WHITE, BLACK, RED = (255, 255, 255), (0, 0, 0), (200, 30, 30)


@pytest.mark.parametrize("kind", layers(layer(LINE, WHITE)))
@pytest.mark.parametrize("condition", CONDITIONS)
def test_white_on_transparent_ground(kind: str, condition: str) -> None:
    content = layers(layer(LINE, WHITE))[kind]
    if condition == "segmentation":
        return
    hint, _ = quiet(open_hint, content, condition)
    numbers = hint_tensor(hint, hint.size, condition).numpy()[0]
    if condition == "inpaint":
        assert hint.mode == "RGBA" and (numbers[~LINE] == -1).all() and (numbers[LINE] > 0.98).all()
        return
    ground = 1 if CONDITIONS[condition].opened.ground == "white" else 0
    assert np.abs(numbers[LINE] - 1).max() < 0.02 and np.abs(numbers[~LINE] - ground).max() < 0.02


@pytest.mark.parametrize("kind", layers(layer(LINE, BLACK)))
@pytest.mark.parametrize("condition", STROKES)
def test_black_strokes_on_transparent_ground_are_white_on_black(kind: str, condition: str) -> None:
    hint, notes = quiet(open_hint, layers(layer(LINE, BLACK))[kind], condition)
    assert np.array_equal(np.asarray(hint.convert("L")) > 127, LINE)
    assert any("dark lines on transparent ground" in note for note in notes)


@pytest.mark.parametrize("colour", [WHITE, BLACK, RED])
@pytest.mark.parametrize("below", [0, 255, 77])
def test_a_painted_mask_acts_where_it_is_painted(colour, below) -> None:
    for kind, content in layers(layer(LINE, colour, below)).items():
        mask, notes = quiet(open_mask, content)
        assert np.array_equal(np.asarray(mask) > 127, LINE) and not notes, kind
        assert np.array_equal(mask_tensor(content, (SIZE, SIZE))[0, 0].numpy() > 0.5, LINE)


def test_an_opaque_mask_acts_by_its_luminance() -> None:
    grey = np.linspace(0, 255, SIZE * SIZE).astype(np.uint8).reshape(SIZE, SIZE)
    for image in (
        Image.fromarray(grey),
        Image.fromarray(grey).convert("RGBA"),
        Image.fromarray(grey).convert("CMYK"),
    ):
        assert np.abs(np.asarray(open_mask(image)).astype(int) - grey).max() <= 1
    green = open_mask(Image.new("RGB", (4, 4), (0, 255, 0)))
    assert np.asarray(green)[0, 0] == 150  # 0.587 · 255


@pytest.mark.parametrize(
    "image", [Image.new("L", (4, 4)), Image.new("RGBA", (4, 4)), np.zeros((4, 4))]
)
def test_a_mask_that_acts_nowhere_is_noted(image) -> None:
    assert "acts nowhere" in quiet(open_mask, image)[1][0]


def test_pictures_stand_on_white() -> None:
    for kind, content in layers(layer(LINE, RED)).items():
        rgb = np.asarray(quiet(open_picture, content)[0]).astype(int)
        assert np.abs(rgb[~LINE] - 255).max() <= 2 and np.abs(rgb[LINE] - RED).max() <= 6, kind


def test_half_transparent_pixels_are_mixed() -> None:
    rgba = np.full((4, 4, 4), 255, np.uint8)
    rgba[..., 3] = 128
    assert abs(int(np.asarray(open_hint(rgba, "softedge"))[0, 0, 0]) - 128) <= 1
    rgba[..., :3] = 0
    assert abs(int(np.asarray(open_picture(rgba))[0, 0, 0]) - 127) <= 1


def test_alpha_that_hides_nothing_is_none() -> None:
    rgba = np.dstack(
        [np.random.default_rng(0).integers(0, 256, (8, 8, 3)), np.full((8, 8), 255)]
    ).astype(np.uint8)
    for read in (open_picture, lambda s: open_hint(s, "canny"), lambda s: open_hint(s, None)):
        picture, notes = quiet(read, rgba)
        assert np.array_equal(np.asarray(picture), rgba[..., :3]) and not notes
    hint, notes = quiet(open_hint, rgba, "inpaint")
    assert hint.mode == "RGB" and "no hole" in notes[0]


def test_an_unknown_control_takes_what_looks_like_a_hole_or_a_drawing() -> None:
    for colour, ground in ((WHITE, 0), (BLACK, 255)):
        hint, notes = quiet(open_hint, layer(LINE, colour), None)
        pixels = np.asarray(hint.convert("RGB"))
        assert (pixels[~LINE] == ground).all() and (pixels[LINE] == colour).all()
        assert "ground of a drawing" in notes[0]
    photo = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    )
    hint, notes = quiet(open_hint, annotate("inpaint", photo), None)
    assert hint.mode == "RGBA" and "hole to fill" in notes[0]


def test_a_finished_map_with_a_transparent_border_is_no_drawing() -> None:
    rgba = np.zeros((SIZE, SIZE, 4), np.uint8)
    rgba[4:-4, 4:-4, 3] = 255
    rgba[4:-4, 4:-4][LINE[4:-4, 4:-4], :3] = 255
    for condition in STROKES:
        hint, notes = quiet(open_hint, rgba, condition)
        wanted = LINE.copy()
        wanted[:, :4] = wanted[:, -4:] = False
        assert np.array_equal(np.asarray(hint.convert("L")) > 127, wanted) and not notes
    rgba[..., :3] = 0  # nor is an empty one
    assert not np.asarray(quiet(open_hint, rgba, "canny")[0]).any()


def test_a_mask_that_is_nearly_opaque_acts_by_its_luminance() -> None:
    rgba = np.dstack(
        [np.where(LINE[..., None], 255, np.zeros(3)), np.full(LINE.shape, 250)]
    ).astype(np.uint8)
    assert np.array_equal(np.asarray(open_mask(rgba)) > 127, LINE)


def test_black_beside_white_on_a_transparent_mask_is_noted() -> None:
    rgba = layer(LINE, WHITE)
    rgba[30:40] = (0, 0, 0, 255)
    mask, notes = quiet(open_mask, rgba)
    assert np.asarray(mask)[35, 5] == 255 and "black and white" in notes[0]


def test_a_picture_that_brings_its_hole_gets_no_other() -> None:
    from zeroconv.annotators import annotate as read_or_draw
    from zeroconv.cli.generate.hinting import draw_hint

    rgba = np.dstack([np.full((SIZE, SIZE, 3), 90), 255 * ~LINE]).astype(np.uint8)
    for hint, notes in (quiet(annotate, "inpaint", rgba), quiet(read_or_draw, "inpaint", rgba)):
        assert np.array_equal(np.asarray(hint), rgba) and "they are the hole" in notes[0]
    hint = draw_hint("inpaint", rgba, (SIZE // 2, SIZE // 2))
    assert np.array_equal(np.asarray(hint)[..., 3] == 0, LINE[1::2, 1::2])
    assert quiet(annotate, "canny", rgba)[0].mode == "RGB"


def test_a_hole_put_into_an_opened_hint_is_looked_at_again() -> None:
    hint = open_hint(np.full((SIZE, SIZE, 3), 255, np.uint8), "softedge")
    hint.putalpha(Image.fromarray(np.where(LINE, 255, 0).astype(np.uint8)))
    again = open_hint(hint, "softedge")
    assert again.mode == "RGB" and np.array_equal(np.asarray(again)[..., 0] > 0, LINE)


# ---------------------------------------------------------------- classes


def test_class_numbers_get_their_colours() -> None:
    ids = np.arange(150, dtype=np.uint8).reshape(10, 15)
    colours = maps.ade20k_colours()[ids]
    identity = bytes(np.repeat(np.arange(256), 3).astype(np.uint8))
    kinds = {
        "grey": Image.fromarray(ids),
        "three channels": Image.fromarray(np.repeat(ids[..., None], 3, -1)),
        "a grey palette": saved(Image.fromarray(ids), "GIF"),
        "palette": png(ids, 8, 3, PLTE=identity),
        "16 bits": png(ids.astype(np.uint16), 16, 0),
        "array": ids,
        "array of int64": ids.astype(np.int64),
        "32-bit TIFF": saved(Image.fromarray(ids.astype(np.int32)), "TIFF"),
        "float TIFF": saved(Image.fromarray(ids.astype(np.float32)), "TIFF"),
    }
    for kind, source in kinds.items():
        hint, notes = quiet(open_hint, source, "segmentation")
        assert np.array_equal(np.asarray(hint), colours), kind
        assert "class numbers" in notes[0]
    hint, notes = quiet(open_hint, saved(Image.fromarray(colours), "PNG"), "segmentation")
    assert np.array_equal(np.asarray(hint), colours) and not notes


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_class_numbers_of_few_bits_are_not_multiplied(bits: int) -> None:
    ids = (np.arange(64) % (1 << bits)).reshape(8, 8).astype(np.uint8)
    hint, _ = quiet(open_hint, png(ids, bits, 0), "segmentation")
    assert np.array_equal(np.asarray(hint), maps.ade20k_colours()[ids])


def test_no_class_is_black_and_unknown_ones_are_refused() -> None:
    ids = np.array([[3, 255]], np.uint8)
    assert (np.asarray(quiet(open_hint, ids, "segmentation")[0])[0, 1] == 0).all()
    for number in (150, 254):
        with pytest.raises(UserError, match=f"class number {number}"):
            open_hint(np.array([[3, number]], np.uint8), "segmentation")
    with pytest.raises(UserError, match="fractions"):
        open_hint(saved(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF"), "segmentation")


def test_class_maps_that_are_not_exact_are_refused() -> None:
    ids = np.repeat(np.repeat(np.arange(100, dtype=np.uint8).reshape(10, 10), 8, 0), 8, 1)
    exact = Image.fromarray(maps.ade20k_colours()[ids])
    for kind, options in (
        ("JPEG", {"quality": 95}),
        ("WEBP", {"quality": 80}),
        ("AVIF", {"quality": 60}),
    ):
        with pytest.raises(UserError, match="PNG"):
            open_hint(saved(exact, kind, **options), "seg")
    lossless = open_hint(saved(exact, "WEBP", lossless=True), "seg")
    assert np.array_equal(np.asarray(lossless), np.asarray(exact))
    blurred = saved(exact.resize((75, 75), Image.Resampling.BILINEAR), "PNG")
    with pytest.raises(UserError, match="nearest neighbour"):
        open_hint(blurred, "segmentation")
    darker = exact.point(lambda level: level // 2)  # a palette of the user's: kept
    assert np.array_equal(np.asarray(open_hint(darker, "segmentation")), np.asarray(darker))


# ---------------------------------------------------------------- everywhere alike


@pytest.mark.parametrize("condition", ["canny", "depth", "tile", "inpaint", "pose"])
@pytest.mark.parametrize("colour", [WHITE, BLACK, RED])
def test_hints_are_the_same_from_every_side(tmp_path: Path, condition: str, colour) -> None:
    rgba = layer(LINE, colour, 90)
    path = tmp_path / "hint.png"
    Image.fromarray(rgba).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sides = [
            hint_tensor(source, (SIZE, SIZE), condition)
            for source in (
                path,
                str(path),
                path.read_bytes(),
                Image.open(path),
                Image.fromarray(rgba),
                rgba,
            )
        ]
        with open(path, "rb") as file:
            sides.append(hint_tensor(file, (SIZE, SIZE), condition))
        sides.append(hint_tensor(read_hint(path, condition), (SIZE, SIZE), condition))
    assert all(np.array_equal(side, sides[0]) for side in sides)


def test_a_data_set_reads_hints_by_their_role(tmp_path: Path) -> None:
    from zeroconv.data import open_dataset
    from zeroconv.data.cache.drawing import draw

    Image.new("RGB", (SIZE, SIZE), "grey").save(tmp_path / "a.png")
    ramp = np.linspace(0, 65535, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    Image.fromarray(layer(LINE, WHITE)).save(tmp_path / "line.png")
    for name, condition, wanted in (
        ("deep", "depth", (ramp + 128.0) // 257),
        ("line", "canny", np.where(LINE, 255, 0)),
    ):
        row = {"file_name": "a.png", "text": "x", "conditioning_image": f"{name}.png"}
        (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
        drawn = draw(open_dataset(tmp_path, condition=condition, size=SIZE), 0).hint
        assert drawn.dtype == np.uint8 and np.array_equal(drawn, wanted)


def test_resizing_keeps_16_bits() -> None:
    ramp = np.linspace(0, 65535, 96 * 96).astype(np.uint16).reshape(96, 96)
    for rule in ("area", "nearest", "lines", None):
        small = resize_hint(open_hint(ramp, "depth"), (48, 48), rule)
        assert small.mode == "I;16" and np.asarray(small).max() > 64000
        assert len(np.unique(np.asarray(small))) > 1000


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_of_0_and_1_are_noted_as_nearly_black(mode: str) -> None:
    colours = np.random.default_rng(0).integers(0, 2, (8, 8, len(mode)), np.uint8)
    colours[..., 3:] = 255
    with pytest.warns(UserWarning, match="nearly black"):
        open_picture(colours, "x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_picture(np.zeros_like(colours[..., :3]), "x")  # black is a colour


def test_class_map_ignores_what_is_transparent() -> None:
    # hundreds of colours, unseen
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 4), np.uint8)
    noise[..., 3] = 0
    noise[:8] = (120, 120, 120, 255)
    noise[8:12] = (180, 120, 120, 255)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hint = np.asarray(open_hint(noise, "segmentation", "x"))
    assert (hint[:8] == 120).all() and not hint[12:].any()

    grey = Image.fromarray(np.full((8, 8, 2), (200, 0), np.uint8), "LA")  # no class 200, unseen
    assert not np.asarray(open_hint(grey, "segmentation", "x")).any()


def test_class_map_of_other_colours_is_noted_in_every_mode() -> None:
    other = np.full((8, 8, 3), (1, 2, 3), np.uint8)
    for picture in (Image.fromarray(other), Image.fromarray(other).quantize(2)):
        with pytest.warns(UserWarning, match="none of ADE20K"):
            open_hint(picture, "segmentation", "x")
