"""Pictures from pictures: what must hold whatever the weights are."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.tiny import randomise_, tiny_backbone, tiny_unet
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate
from zeroconv.generation.hints import mask_tensor
from zeroconv.generation.image.inpaint import filled, of_shape, paste_weight, region_of
from zeroconv.generation.image.latents import mask_at

FEW = {"steps": 2, "cfg": 2.0}


def photo(size: tuple[int, int] = (64, 64), seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def box_mask(box: tuple[int, int, int, int], size: tuple[int, int] = (64, 64)) -> Image.Image:
    mask = Image.new("L", size, 0)
    mask.paste(255, box)
    return mask


def apart(a: Image.Image, b: Image.Image) -> np.ndarray:
    """Levels between two pictures, (H, W)."""
    return np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max(axis=2)


@pytest.fixture(scope="module")
def inpainting():
    return tiny_backbone(unet=tiny_unet(in_channels=9, out_channels=4))


@pytest.fixture(scope="module")
def editing():
    return tiny_backbone(unet=tiny_unet(in_channels=8, out_channels=4))


@pytest.mark.parametrize("blur", [None, 3.0])
@pytest.mark.parametrize("content", ["original", "fill", "noise"])
def test_repaint_leaves_what_is_not_masked(small, blur, content):
    picture, mask = photo(), box_mask((13, 9, 47, 50))
    (made,) = generate(
        small, "a", image=picture, mask=mask, mask_blur=blur, masked_content=content, **FEW
    )
    inside = np.asarray(mask) > 0
    assert apart(made, picture)[~inside].max() == 0
    assert (apart(made, picture)[inside] > 3).mean() > 0.5


def test_repaint_of_only_the_masked_part_keeps_size_and_the_rest(small):
    picture, mask = photo((150, 101)), box_mask((100, 20, 131, 60), (150, 101))
    (made,) = generate(small, "a", image=picture, mask=mask, only_masked=True, padding=8, **FEW)
    inside = np.asarray(mask) > 0
    assert made.size == picture.size
    assert apart(made, picture)[~inside].max() == 0
    assert apart(made, picture)[inside].max() > 3


def test_expand_adds_ground_and_keeps_the_picture(small):
    picture = photo()
    with pytest.warns(UserWarning, match="3 more columns"):
        (made,) = generate(small, "a", image=picture, expand={"left": 21, "bottom": 16}, **FEW)
    assert made.size == (88, 80)
    assert apart(made.crop((24, 0, 88, 64)), picture).max() == 0


def test_a_seed_gives_the_same_picture_from_pictures_in_any_batch(small, inpainting, editing):
    pictures, masks = (
        [photo(seed=i) for i in range(3)],
        [box_mask((8, 8, 40, 50 + i)) for i in range(3)],
    )
    for base, more in (
        (small, {}),
        (small, {"mask": masks}),
        (inpainting, {"mask": masks}),
        (editing, {}),
    ):
        request = {**FEW, "image": pictures, "strength": 0.6, "scheduler": "euler_a", "seed": 5}
        options = {**request, "output": "tensor", **more}
        together = generate(base, ["a", "b", "c"], batch_size=3, **options)
        alone = generate(base, ["a", "b", "c"], batch_size=1, **options)
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize(
    "scheduler", ["ddim", "euler", "euler_a", "dpm++sde", "dpm++3m_sde", "pndm", "lcm", "dpm2"]
)
def test_repaint_ends_at_the_picture_with_every_kind_of_step(small, scheduler):
    """The latents outside the mask are the picture's when sampling ends."""
    seen = []
    generate(
        small, "a", image=photo(), mask=box_mask((0, 0, 32, 64)), scheduler=scheduler, steps=4,
        strength=0.8, seed=1, callback=lambda i, n, z: seen.append((i, n, z)),
    )  # fmt: skip
    number, steps, z = seen[-1]
    assert number == steps
    from zeroconv.generation.image.latents import encoded

    picture = torch.from_numpy(np.asarray(photo()).copy()).permute(2, 0, 1) / 255
    source = torch.Generator().manual_seed(1)
    assert torch.allclose(z[..., 4:], encoded(small, [picture], [source])[..., 4:], atol=1e-5)


def test_an_inpainting_base_without_mask_or_picture_makes_pictures(inpainting):
    (made,) = generate(inpainting, "a", **FEW)
    (changed,) = generate(inpainting, "a", image=photo(), **FEW)
    assert made.size == changed.size == (64, 64)


def test_an_editing_base_needs_a_picture_and_reads_its_guidance(small, editing):
    with pytest.raises(UserError, match="give image"):
        generate(editing, "a", **FEW)
    made = [
        generate(editing, "a", image=photo(), image_guidance=g, steps=2, cfg=1.0)[0]
        for g in (1.0, 3.0)
    ]
    assert apart(*made).max() > 0
    with pytest.warns(UserWarning, match="image_guidance"):
        generate(small, "a", image=photo(), image_guidance=2.0, **FEW)


def test_an_inpaint_control_takes_its_hint_from_picture_and_mask():
    backbone = tiny_backbone()
    net = randomise_(ControlNet.from_backbone(backbone, condition="inpaint"))
    picture, mask = photo(), box_mask((16, 16, 48, 48))
    hint = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1) / 255
    hint[:, 16:48, 16:48] = -1
    options = {**FEW, "image": picture, "mask": mask, "output": "tensor"}
    (given,) = generate(backbone, "a", [Control(net, hint)], **options)
    (drawn,) = generate(backbone, "a", [Control(net, None)], **options)
    assert torch.equal(given, drawn)
    with pytest.raises(UserError, match="no hint"):
        generate(backbone, "a", [Control(net, None)], **FEW)


def test_hints_show_the_picture_of_which_only_masked_takes_a_box():
    backbone = tiny_backbone()
    net = randomise_(ControlNet.from_backbone(backbone, condition="canny"))
    picture, mask = photo((128, 128)), box_mask((40, 40, 72, 72), (128, 128))
    hint = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(1))
    options = {**FEW, "image": picture, "mask": mask, "only_masked": True, "padding": 16}
    (first,) = generate(backbone, "a", [Control(net, hint)], **options)
    other = hint.clone()
    other[:, :20] = 0  # outside the box
    (second,) = generate(backbone, "a", [Control(net, other)], **options)
    other[:, 50:60] = 0
    (third,) = generate(backbone, "a", [Control(net, other)], **options)
    assert apart(first, second).max() == 0 and apart(second, third).max() > 0


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"strength": 0.5}, "give image"),
        ({"mask": box_mask((0, 0, 9, 9))}, "give image"),
        ({"image": "picture", "strength": 0.1}, "is no step"),
        ({"image": "picture", "strength": 1.5}, "from 0 to 1"),
        ({"image": "picture", "only_masked": True}, "give mask"),
        ({"image": "picture", "masked_content": "loud"}, "original, fill, noise"),
        ({"image": "picture", "expand": {"up": 8}}, "no side"),
        ({"image": "picture", "expand": {"left": -8}}, "from 0"),
        ({"image": "picture", "mask": Image.new("L", (64, 64)), "only_masked": True}, "black"),
        ({"image": "picture", "expand": {"left": 8}, "hires": 2.0}, "hires"),
        ({"hires_steps": 3}, "give hires"),
        ({"hires": 2.0, "hires_strength": 0.1}, "is no step"),
        ({"hires": 2.0, "hires_upscaler": "loud"}, "latent, lanczos"),
        ({"image": "no such.png"}, "no such.png"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*acts nowhere")
def test_image_refuses_what_does_not_go_together(small, request_, sentence):
    request_ = {k: photo() if v == "picture" else v for k, v in request_.items()}
    with pytest.raises(UserError, match=sentence):
        generate(small, "a", **{**FEW, **request_})


def test_image_of_another_size_is_resized_and_noted(small):
    with pytest.warns(UserWarning, match="67×70 pixels and was resized to 64×64"):
        (made,) = generate(small, "a", image=photo((67, 70)), **FEW)
    assert made.size == (64, 64)


def test_mask_thinner_than_a_latent_is_noted(small):
    with pytest.warns(UserWarning, match="of the mask is lost"):
        generate(small, "a", image=photo(), mask=box_mask((3, 3, 6, 60)), **FEW)


@pytest.mark.parametrize("mask", [Image.new("L", (64, 64), 100), torch.full((64, 64), 0.4)])
def test_mask_without_a_white_level_is_noted_and_refused_for_only_masked(small, mask):
    with pytest.warns(UserWarning, match="no level of the mask reaches 128"):
        generate(small, "a", image=photo(), mask=mask, **FEW)
    with pytest.raises(UserError, match="no level of it reaches 128"):
        generate(small, "a", image=photo(), mask=mask, only_masked=True, **FEW)


@pytest.mark.parametrize(
    ("request_", "note"),
    [
        ({"expand": {"left": 0}}, "expand adds no pixel"),
        ({"padding": 5, "mask": box_mask((8, 8, 40, 40))}, "padding is about only_masked"),
    ],
)
def test_image_options_that_change_nothing_are_noted(small, request_, note):
    with pytest.warns(UserWarning, match=note):
        generate(small, "a", image=photo(), **{**FEW, **request_})


def test_images_with_transparent_pixels_are_noted(small):
    picture = photo().convert("RGBA")
    picture.paste((0, 0, 0, 0), (0, 0, 64, 16))
    with pytest.warns(UserWarning, match=r"transparent in 25.0% of its pixels: they are filled"):
        generate(small, "a", image=picture, **FEW)


def test_mask_thinner_than_a_latent_is_noted_with_what_mends_it(small):
    thin = box_mask((3, 3, 6, 60))
    with pytest.warns(UserWarning, match="paint it wider, or give a larger height and width"):
        generate(
            small, "a", image=photo(), mask=thin, only_masked=True, height=32, width=32,
            padding=64, **{k: v for k, v in FEW.items() if k not in ("height", "width")},
        )  # fmt: skip


@pytest.mark.parametrize(("size", "noted"), [((32, 32), 0), ((67, 63), 0), ((64, 32), 1)])
def test_region_of_another_shape_is_noted(size, noted):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mask_tensor(Image.new("L", size, 255), (64, 64), name="region")
    assert sum("region is" in str(one.message) for one in caught) == noted


# ---------------------------------------------------------------- parts


def test_region_of_a_mask_grows_to_the_shape_within_the_picture():
    box = region_of(box_mask((50, 10, 60, 20), (64, 64)), 4)
    assert box == (46, 6, 64, 24)
    assert of_shape(box, (64, 64), (64, 64)) == (46, 6, 64, 24)
    assert of_shape((0, 0, 10, 10), (20, 10), (64, 64)) == (0, 0, 20, 10)
    left, top, right, bottom = of_shape((60, 0, 64, 64), (64, 64), (64, 64))
    assert (left, top, right, bottom) == (0, 0, 64, 64)


def test_filled_continues_colours_and_keeps_what_is_known():
    pixels = np.full((40, 50, 3), 90, np.uint8)
    pixels[:, 25:] = 200
    known = np.zeros((40, 50), bool)
    known[10:30, 10:40] = True
    full = filled(np.where(known[..., None], pixels, 0).astype(np.uint8), known)
    assert (full[known] == pixels[known]).all()
    assert full[20, 0, 0] < 110 and full[20, 49, 0] > 180
    assert (filled(pixels, np.zeros_like(known)) == 128).all()


def test_paste_weight_is_zero_outside_and_full_deep_inside():
    weight = paste_weight(box_mask((10, 10, 54, 54)), 4.0)[0].numpy()
    assert weight[:10].max() == 0 and weight[32, 32] > 0.99
    assert 0 < weight[32, 12] < 1
    with pytest.warns(UserWarning, match="mask_blur"):
        paste_weight(box_mask((30, 0, 33, 64)), 4.0)


def test_mask_at_takes_a_latent_s_first_pixel():
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 0, 8] = 1
    assert mask_at(mask, (2, 2)).flatten().tolist() == [0, 1, 0, 0]
