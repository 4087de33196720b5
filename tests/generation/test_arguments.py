"""Every argument of `generate` × wrong types and values: an error that names it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.tiny import randomise_, tiny_backbone
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture(scope="module")
def net(backbone):
    return randomise_(ControlNet.from_backbone(backbone, condition="canny"))


nan, inf = float("nan"), float("inf")
GENERATOR = torch.Generator()
NO_TEXT = [
    None,
    3,
    b"a ball",
    np.zeros(3),
    {"a": 1},
    [],
    ["a", None],
    [b"a"],
    "\ud800",
    "a\0b",
    "x" * 200_000,
]
NO_INTEGERS = [
    None,
    True,
    1.5,
    "3",
    b"3",
    nan,
    inf,
    [3],
    GENERATOR,
    torch.ones(2),
    np.zeros(2),
    10**30,
    0,
    -1,
]
NO_NUMBER = [None, True, "3", b"3", nan, -inf, [3.0], GENERATOR, torch.ones(2), 1e9, 1j]
NO_NAME = [None, 3, b"euler", ["euler"], "no such name", ""]
NO_SIZE = [*[v for v in NO_INTEGERS if v is not None], 63, 10**9]
NO_PICTURE = [
    None,
    3,
    "no such.png",
    b"no picture",
    {"a": 1},
    [],
    torch.ones(1, 8, 8) * nan,
    torch.ones(8),
]
NO_PICTURE += [
    torch.ones(2, 64, 64),
    torch.full((3, 64, 64), 200.0),
    torch.ones(0, 3, 4),
    np.ones((2, 2, 7)),
]

ARGUMENTS = {
    "prompt": NO_TEXT,
    "negative": list(NO_TEXT),
    "guidance": NO_NAME,
    "cfg": NO_NUMBER,
    "steps": [*NO_INTEGERS, 1001],
    "seed": [
        None,
        True,
        1.5,
        "3",
        b"3",
        nan,
        GENERATOR,
        np.zeros(2),
        10**30,
        [1, 2],
        [None],
        [1.5],
        [GENERATOR],
    ],
    "scheduler": NO_NAME[1:],  # None: the base's usual one
    "height": NO_SIZE,
    "width": NO_SIZE,
    "latents": [
        3,
        "x",
        np.zeros(4),
        torch.zeros(4),
        torch.full((1, 4, 8, 8), nan),
        torch.zeros(1, 4, 8, 8).int(),
    ],
    "count": NO_INTEGERS,
    "batch_size": NO_INTEGERS,
    "connection_scales": [3, b"x", "no such rule", [1.0], [nan] * 13, ["1"] * 13, GENERATOR],
    "callback": [3, "x"],
    "finished": [3, "x"],
    "output": [*NO_NAME, "np"],
    "controls": [
        None,
        3,
        "canny",
        {"net": 1},
        [3],
        [None],
        [{"net": 1, "hint": 2}],
        Image.new("RGB", (8, 8)),
    ],
}
CONTROL = {
    "net": [None, "canny", 3, torch.nn.Linear(2, 2)],
    "hint": NO_PICTURE,
    "scale": [*NO_NUMBER, [nan], ["1"], [1.0, 2.0, 3.0]],
    "start": [*NO_NUMBER, -0.1, 1.1],
    "end": [*NO_NUMBER, -0.1, 0],
    "connection_scales": [3, b"x", "no such rule", [1.0], [nan] * 13, ["1"] * 13],
    "curve": [None, 3, "no such curve", [3], [(0, "x")], [(nan, 1)], []],
    "region": [v for v in NO_PICTURE if v is not None],
    "mode": [3, b"balanced", "no such mode"],
    "conditional_only": [None, "yes", 1],
}


def cases(table: dict) -> list:
    return [
        pytest.param(name, value, id=f"{name} {type(value).__name__} {ascii(value)[:25]}")
        for name, values in table.items()
        for value in values
        # NumPy's numbers and lists of one scale a picture are no mistakes; None is the base's own
        if not (
            (name == "scale" and value == [3.0]) or (name in ("guidance", "cfg") and value is None)
        )
    ]


def refused(name: str, call) -> str:
    with pytest.raises((TypeError, UserError)) as caught:
        call()
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 1000
    return sentence


@pytest.mark.parametrize(("name", "value"), cases(ARGUMENTS))
def test_generate_refuses_an_argument_and_names_it(backbone, name, value) -> None:
    few = {"steps": 1, "cfg": 1.0}
    prompt = {} if name == "prompt" else {"prompt": "a"}
    sentence = refused(name, lambda: generate(backbone, **{**few, **prompt, name: value}))
    assert name.rstrip("s") in sentence, sentence


@pytest.mark.parametrize(("name", "value"), cases(CONTROL))
def test_generate_refuses_a_control_and_names_its_part(backbone, net, name, value) -> None:
    sound = {"net": net, "hint": Image.new("RGB", (64, 64))}
    control = Control(**{**sound, name: value})
    sentence = refused(name, lambda: generate(backbone, "a", [control], steps=1, cfg=1.0))
    words = {"start": ("start", "window"), "end": ("end", "window"), "hint": ("hint", "pose")}
    # a path is its own name
    named = (*words.get(name, (name.split("_")[0],)), "no such.png")
    assert any(word in sentence.lower() for word in named), sentence


def test_generate_takes_every_number_that_is_one(backbone) -> None:
    def make(**options) -> np.ndarray:
        (image,) = generate(backbone, "a", **{"steps": 1, "cfg": 1.0, **options})
        return np.asarray(image)

    expected = make(seed=3, height=64, width=64)
    for seed in (np.int64(3), torch.tensor(3), [3], (np.uint8(3),)):
        assert (make(seed=seed, height=np.int32(64), width=torch.tensor(64)) == expected).all()
    assert (make(seed=3, cfg=np.float32(1), steps=np.int8(1)) == expected).all()


@pytest.mark.parametrize("kind", ["pil", "array", "tensor", "path", "bytes"])
def test_a_hint_is_the_same_in_every_form(backbone, net, tmp_path, kind) -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[20:40] = 255
    picture = Image.fromarray(pixels)
    picture.save(tmp_path / "hint.png")
    forms = {
        "pil": picture,
        "array": pixels,
        "tensor": torch.from_numpy(pixels).permute(2, 0, 1).float() / 255,
        "path": tmp_path / "hint.png",
        "bytes": (tmp_path / "hint.png").read_bytes(),
    }
    few = {"steps": 1, "cfg": 1.0, "output": "tensor"}
    expected = generate(backbone, "a", [Control(net, picture)], **few)[0]
    assert torch.equal(generate(backbone, "a", [Control(net, forms[kind])], **few)[0], expected)
    plain = generate(backbone, "a", **few)[0]
    assert not torch.equal(plain, expected)


def test_pictures_are_reported_as_soon_as_they_are_done(backbone) -> None:
    heard: list[object] = []
    images = generate(
        backbone,
        "a",
        count=3,
        batch_size=2,
        steps=1,
        cfg=1.0,
        callback=lambda step, total, z: heard.append("step"),
        finished=lambda number, image: heard.append((number, image)),
    )
    assert heard == ["step", (0, images[0]), (1, images[1]), "step", (2, images[2])]


@pytest.mark.parametrize("part", ["unet", "vae", "control"])
def test_values_that_are_no_numbers_are_refused_with_model_and_step(backbone, net, part) -> None:
    import copy

    broken, guides = backbone, []
    if part == "control":
        bad = copy.deepcopy(net)
        bad.zero_convs[0].weight.data.fill_(nan)
        guides = [Control(bad, Image.new("RGB", (64, 64)))]
    else:
        broken = copy.deepcopy(backbone)
        next(getattr(broken, part).parameters()).data.fill_(nan)
        if part == "vae":
            for weight in broken.vae.decoder.parameters():
                weight.data.fill_(nan)
    expected = {"unet": "step 1 of 2", "control": "canny", "vae": "VAE"}[part]
    with pytest.raises(UserError, match=expected):
        generate(broken, "a", guides, steps=2, cfg=1.0)
