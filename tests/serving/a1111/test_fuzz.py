"""Random bodies for A1111's addresses: no answer is the server's fault, nothing is written outside
of the data folder, no path of a request is opened, and no memory is kept.
"""

from __future__ import annotations

import base64
import gc
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from zeroconv.serving.a1111.modules import modules
from zeroconv.serving.a1111.names import LATENT_MODES, PIXEL_UPSCALERS, samplers, schedulers
from zeroconv.serving.a1111.schemas import OLD_NAMES, Detect, Img2Img, Txt2Img, Unit

CANARY = Path(__file__).with_name("conftest.py")  # a file that is there, to be named as a picture


def base64_of(size: tuple[int, int], mode: str, format: str = "PNG") -> str:
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 4), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format=format)
    return base64.b64encode(buffer.getvalue()).decode()


PICTURES = [
    base64_of((48, 32), "RGB"),
    base64_of((32, 32), "L"),
    base64_of((16, 40), "RGBA"),
    base64_of((1, 1), "P"),
    base64_of((300, 2), "1"),
    base64_of((24, 24), "RGB", "JPEG"),
    base64_of((24, 24), "RGBA", "WEBP"),
    base64_of((24, 24), "RGB", "BMP"),
    base64_of((1200, 900), "L"),  # more pixels than are allowed
    f"data:image/png;base64,{base64_of((8, 8), 'RGB')}",
    base64_of((48, 32), "RGB")[:200],
    str(CANARY),
    f"file://{CANARY}",
    "http://127.0.0.1:9/picture.png",
    "",
    " ",
    "data:,",
    "🙂",
]
WORDS = st.sampled_from(
    [
        *(name for entry in samplers() for name in (entry["name"], *entry["aliases"])),
        *(entry["label"] for entry in schedulers()),
        *LATENT_MODES, *PIXEL_UPSCALERS, *modules(),
        "canny", "softedge", "playroom", "None", "Both", "Low res only", "Balanced",
        "ControlNet is more important", "Just Resize", "Resize and Fill", "OpenPose", "Unknown",
        "controlnet", "ControlNet", "ADetailer", "../../etc/passwd", "<lora:night:1>", "\x00",
        "((a:1.5)) [b] BREAK <lora:x", "\udcff", "a" * 3000,
    ]
)  # fmt: skip
NUMBERS = st.one_of(
    st.integers(-3, 70),
    st.sampled_from([-1, 0, 1, 2, 64, 100, 512, 10_000, 100_000, 2**31, 2**53, 2**63, 10**40]),
    st.sampled_from([1e308, -0.0, 0.5]),
    st.floats(-10, 300),
)
PLAIN = st.one_of(
    st.none(), st.booleans(), NUMBERS, WORDS, st.text(max_size=8), st.sampled_from(PICTURES)
)
JSON = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
GOOD = st.sampled_from(PICTURES[:7])
PICTURE = st.one_of(*[GOOD] * 8, st.sampled_from(PICTURES), JSON)
IMAGE = st.one_of(
    PICTURE,
    st.fixed_dictionaries({"image": PICTURE}, optional={"mask": PICTURE}),
    st.lists(PICTURE, max_size=3),
)
# values that make sense to a field, so that requests get further than its type
SENSIBLE: dict[str, Any] = {
    "enabled": st.just(True),
    "module": st.sampled_from([*modules()] * 3 + ["None", "depth_midas", "reference_only"]),
    "weight": st.floats(0, 2),
    "control_mode": st.sampled_from([0, 1, 2, "Balanced", ["ControlNet is more important"]]),
    "resize_mode": st.sampled_from([0, 1, 2, "Just Resize", "Envelope (Outer Fit)"]),
    "hr_option": st.sampled_from(["Both", "Low res only", "High res only"]),
    "union_control_type": st.sampled_from(["Unknown", "OpenPose", "Hard Edge"]),
    "processor_res": st.one_of(st.integers(-1, 300), NUMBERS),
    "threshold_a": NUMBERS,
    "threshold_b": NUMBERS,
    "advanced_weighting": st.one_of(st.none(), st.lists(st.floats(0, 1), min_size=1, max_size=14)),
    "enable_hr": st.booleans(),
    "hr_scale": st.floats(0.5, 16),
    "hr_upscaler": st.sampled_from([*LATENT_MODES, *PIXEL_UPSCALERS]),
    "denoising_strength": st.floats(0, 1),
    "seed": st.one_of(st.integers(-1, 100), NUMBERS),
    "inpainting_fill": st.integers(0, 3),
    "inpaint_full_res": st.booleans(),
    "inpainting_mask_invert": st.integers(0, 1),
    "mask_blur": st.floats(0, 30),
    "inpaint_full_res_padding": st.integers(0, 100),
    "prompt": WORDS,
    "save_images": st.booleans(),
    "model": st.sampled_from(["canny", "softedge", "canny [0123abcd]", "None"]),
    "image": IMAGE,
    "mask": PICTURE,
    "effective_region_mask": PICTURE,
    "ipadapter_input": st.none(),
    "init_images": st.one_of(*[st.lists(GOOD, min_size=1, max_size=1)] * 4, st.lists(PICTURE)),
    "controlnet_module": st.sampled_from(list(modules())),
    "controlnet_input_images": st.lists(PICTURE, min_size=1, max_size=2),
    "controlnet_images": st.lists(PICTURE, min_size=1, max_size=2),
    "controlnet_masks": st.lists(PICTURE, min_size=1, max_size=2),
    "sampler_name": st.sampled_from([entry["name"] for entry in samplers()]),
    "scheduler": st.sampled_from([entry["name"] for entry in schedulers()]),
    "width": st.one_of(*[st.integers(1, 130)] * 4, st.just(100_000)),
    "height": st.one_of(*[st.integers(1, 130)] * 4, st.just(100_000)),
    "steps": st.integers(1, 60),
    "batch_size": st.integers(1, 3),
    "n_iter": st.integers(1, 2),
    "guidance_start": st.sampled_from([0, 0.2]),
    "guidance_end": st.sampled_from([0.8, 1]),
    "script_name": st.none(),
    "override_settings": st.one_of(
        st.just({}),
        st.dictionaries(
            st.sampled_from(["sd_model_checkpoint", "CLIP_stop_at_last_layers", "sd_vae", "x"]),
            PLAIN,
        ),
    ),
}


def body(model: Any, **more: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Fields of values that make sense to them, and of some bodies one or two of any value."""
    fits = {**SENSIBLE, **more}
    needed = "enabled image model init_images controlnet_module controlnet_input_images".split()
    named = [name for name in fits if name in model.model_fields]
    required = {name: fits[name] for name in named if name in needed}
    optional = {name: fits[name] for name in named if name not in needed}
    names = [*model.model_fields, *(OLD_NAMES if model is Unit else ()), "unknown"]
    return st.builds(
        lambda one, other: {**one, **other},
        st.fixed_dictionaries(required, optional=optional),
        st.one_of(*[st.just({})] * 2, st.dictionaries(st.sampled_from(names), JSON, max_size=2)),
    )


SCRIPTS = st.dictionaries(
    st.sampled_from(["controlnet", "ControlNet", "controlNet"]),
    st.fixed_dictionaries({"args": st.lists(body(Unit), max_size=3)}),
    max_size=1,
)
NUMBER_LIST = st.lists(st.one_of(st.floats(0, 100), NUMBERS), max_size=54)
PERSON = st.fixed_dictionaries(
    {},
    optional={
        "pose_keypoints_2d": st.one_of(NUMBER_LIST, st.just([5.0, 6.0, 1.0] * 18), JSON),
        "hand_left_keypoints_2d": st.one_of(st.just([9.0, 9.0, 1.0] * 21), JSON),
        "face_keypoints_2d": st.one_of(NUMBER_LIST, JSON),
    },
)
POSES = st.lists(
    st.fixed_dictionaries(
        {
            "people": st.one_of(st.lists(PERSON, max_size=3), JSON),
            "canvas_width": st.one_of(st.integers(1, 100), NUMBERS),
            "canvas_height": st.one_of(st.integers(1, 100), NUMBERS),
        }
    ),
    max_size=2,
)
REQUESTS = st.one_of(
    st.tuples(st.just("/sdapi/v1/txt2img"), body(Txt2Img, alwayson_scripts=SCRIPTS)),
    st.tuples(st.just("/sdapi/v1/img2img"), body(Img2Img, alwayson_scripts=SCRIPTS)),
    st.tuples(st.just("/controlnet/detect"), body(Detect)),
    st.tuples(st.just("/controlnet/render_openpose_json"), st.one_of(POSES, JSON)),
    st.tuples(
        st.just("/sdapi/v1/png-info"), st.one_of(st.fixed_dictionaries({"image": PICTURE}), JSON)
    ),
    st.tuples(st.just("/sdapi/v1/options"), st.one_of(SENSIBLE["override_settings"], JSON)),
)


class Opened:
    """Files that this process opens, by Python's audit events."""

    def __init__(self) -> None:
        self.watching, self.read, self.written = False, set[str](), set[str]()
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple) -> None:
        if not self.watching or event not in ("open", "os.mkdir", "os.rename", "os.link"):
            return
        paths = [os.fsdecode(a) for a in arguments[:2] if isinstance(a, str | bytes | os.PathLike)]
        writes = event != "open" or bool(
            (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if event == "open":
            paths = paths[:1]
        (self.written if writes else self.read).update(map(os.path.abspath, paths))

    @contextmanager
    def watch(self) -> Iterator[Opened]:
        self.watching = True
        try:
            yield self
        finally:
            self.watching = False


@pytest.fixture(scope="module")
def files() -> Opened:
    return Opened()


def check(client: Any, files: Opened, request: tuple[str, Any]) -> int:
    """The status of an answer that is a client's, in A1111's shape."""
    path, sent = request
    content = json.dumps(sent)
    headers = {"Content-Type": "application/json"}
    with files.watch():
        answer = client.post(path, content=content, headers=headers)
    assert answer.status_code < 500, (path, sent, answer.text)
    if answer.status_code != 200:
        assert "detail" in answer.json(), answer.text
        assert "Traceback" not in answer.text and str(client.folder) not in answer.text
    assert str(CANARY) not in files.read
    outside = [p for p in files.written if not p.startswith(str(client.folder))]
    assert not [p for p in outside if not p.startswith(("/dev/", "/proc/"))], outside
    return answer.status_code


@settings(
    max_examples=40, deadline=None, database=None, derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(request=REQUESTS)
def test_random_bodies_are_answered(client, files: Opened, request) -> None:
    check(client, files, request)


@pytest.mark.api
def test_two_thousand_random_bodies_are_answered(client, files: Opened) -> None:
    statuses: dict[str, list[int]] = {}
    followed: list[bool] = []

    @settings(
        max_examples=2000, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(request=REQUESTS)
    def ask(request) -> None:
        status = check(client, files, request)
        statuses.setdefault(request[0], []).append(status)
        if status == 200 and request[0].endswith("img"):
            followed.append(bool(client.made[-1].controls))

    ask()
    for path, answers in statuses.items():  # else only refusals would have been tried
        good = answers.count(200)
        print(f"{path}: {len(answers)} bodies, {good} answered 200")
        assert good > len(answers) / 20, (path, good, len(answers))
    print(f"{sum(followed)} of {len(followed)} requests for pictures had controls")
    assert any(followed)


@pytest.mark.api
def test_repeated_requests_hold_no_memory(client) -> None:
    """MiB held after 150 requests of each kind are those after 30 of them."""
    process = psutil.Process()
    unit = {"enabled": True, "module": "softedge_hed", "model": "canny", "image": PICTURES[0]}
    scripts = {"controlnet": {"args": [{**unit, "processor_res": 256}]}}
    detected = {"controlnet_module": "canny", "controlnet_images": PICTURES[:2]}
    requests = [
        ("/sdapi/v1/txt2img", {"batch_size": 3, "alwayson_scripts": scripts}),
        ("/sdapi/v1/img2img", {"init_images": PICTURES[:1], "mask": PICTURES[1]}),
        ("/controlnet/detect", {**detected, "controlnet_processor_res": 300}),
        ("/sdapi/v1/png-info", {"image": PICTURES[0]}),
        ("/sdapi/v1/txt2img", {"steps": "many"}),
    ]

    def held_after(count: int) -> int:
        for path, sent in requests * count:
            assert client.post(path, json=sent).status_code in (200, 422)
        gc.collect()
        return process.memory_info().rss >> 20

    first, last = held_after(30), held_after(120)
    print(f"{first} MiB after 30 requests of each kind, {last} after 150")
    assert last - first < 20
