"""POST /api/v1/generate: pictures, their files, what they were made from, batches."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.helpers.tiny_server import QUICK, as_base64, ended, made, opened, picture
from zeroconv.generation.metadata.record import read_info
from zeroconv.serving.generation import Generation, Unit

MASK = as_base64(Image.new("L", (64, 64), 0).point(lambda _: 255))


def pixels(client, result) -> np.ndarray:
    answer = client.get(result["picture"])
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    return np.asarray(opened(answer.content))


def test_generate_makes_a_picture_that_says_how(client) -> None:
    controls = [{"control": "tiny_canny", "source": as_base64(picture())}]
    job = made(client, controls=controls, schedule="trailing")  # nothing to note at few steps
    (result,) = job["results"]
    content = client.get(result["picture"]).content
    about = read_info(io.BytesIO(content))
    assert about["prompt"] == "a cat" and about["seed"] == 3 and about["base"] == "base"
    assert [c["name"] for c in about["controls"]] == ["tiny_canny"]
    assert np.asarray(about["hints"][0]).max() == 255
    assert client.get(result["thumb"]).headers["content-type"] == "image/webp"
    assert job["progress"] == 1 and job["error"] is None and job["notes"] == []


def test_generate_again_from_the_history_gives_the_same_bits(client) -> None:
    hint = Image.new("L", (64, 64))
    hint.paste(255, (10, 20, 40, 22))
    region = Image.new("L", (64, 64), 255)
    asked = {"control": "tiny_canny", "hint": as_base64(hint), "region": as_base64(region)}
    body = {"controls": [asked], "image": as_base64(picture()), "mask": MASK, "strength": 1.0}
    job = made(client, **body)
    entry = client.get(f"/api/v1/history/{job['results'][0]['id']}").json()
    again = entry["settings"]
    for part, name in ((again, "image"), (again, "mask")):
        part[name] = as_base64(opened(client.get(part[name]).content))
    for name in ("hint", "region"):
        control = again["controls"][0]
        control[name] = as_base64(opened(client.get(control[name]).content))
    second = ended(client, client.post("/api/v1/generate", json=again).json())
    one, two = (pixels(client, j["results"][0]) for j in (job, second))
    np.testing.assert_array_equal(one, two)


def test_generate_keeps_a_pose_with_its_joints(client) -> None:
    joints = [10 + i * 2 if i % 3 < 2 else 1 for i in range(54)]
    pose = {"people": [{"pose_keypoints_2d": joints}], "canvas_width": 64, "canvas_height": 64}
    one = {"control": "tiny_canny", "pose_json": pose}
    (result,) = made(client, controls=[one])["results"]
    settings = client.get(f"/api/v1/history/{result['id']}").json()["settings"]
    assert settings["controls"][0]["pose_json"] == pose
    assert settings["controls"][0]["hint"] is None  # one of both can be sent
    hint = client.get(f"/api/v1/history/{result['id']}/hints/0.png")
    assert opened(hint.content).size == (64, 64)
    again = ended(client, client.post("/api/v1/generate", json=settings).json())["results"][0]
    np.testing.assert_array_equal(pixels(client, result), pixels(client, again))
    # of a crowd the hint alone is kept
    crowd = {**pose, "people": pose["people"] * 190, "more": "x" * 20_000}
    unit = Generation(controls=[Unit("tiny_canny", pose=crowd)]).settings()["controls"][0]
    assert unit["pose_json"] is None and unit["hint"] is True


def test_generate_counts_seeds_up(client) -> None:
    job = made(client, count=3)
    assert [result["seed"] for result in job["results"]] == [3, 4, 5]
    one = made(client, seed=4)
    first, second = pixels(client, job["results"][1]), pixels(client, one["results"][0])
    assert np.abs(first.astype(int) - second).max() <= 1


def test_generate_draws_a_seed_that_it_tells(client) -> None:
    seeds = {made(client, seed=-1, steps=1)["results"][0]["seed"] for _ in range(2)}
    assert len(seeds) == 2 and min(seeds) >= 0


SLOW = pytest.mark.slow
HALF = [0.5] * 13  # of each connection


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"hires": {"factor": 1.5, "steps": 2}}, id="hires"),
        pytest.param({"image": as_base64(picture()), "strength": 0.6}, id="image"),
        pytest.param(
            {"image": as_base64(picture()), "expand": {"left": 16}, "masked_content": "fill"},
            id="expand", marks=SLOW,
        ),
        pytest.param(
            {"image": as_base64(picture((96, 64))), "mask": MASK, "only_masked": True},
            id="only_masked", marks=SLOW,
        ),
        pytest.param(
            {"controls": [{"control": "tiny_depth", "hint": MASK, "curve": [[0, 1]]}]},
            id="curve", marks=SLOW,
        ),
        pytest.param(
            {"controls": [{"control": "tiny_depth", "hint": MASK, "connection_scales": HALF}]},
            id="scales", marks=SLOW,
        ),
        pytest.param(
            {"schedule": "karras", "guidance": "cond", "cfg": 3, "clip_skip": 1}, id="sampling"
        ),
        pytest.param(
            {
                "image": as_base64(picture()),
                "strength": 1,
                "controls": [{"control": "tiny_canny"}],
            },
            id="hint of the image",
        ),
    ],
)  # fmt: skip
def test_generate_does_what_zeroconv_generate_does(client, body) -> None:
    assert len(made(client, **body)["results"]) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"base": "../../etc"}, "no base"),
        ({"controls": [{"control": "/etc/passwd", "hint": MASK}]}, "no control"),
        ({"loras": [{"name": "x"}]}, "no LoRA"),
        ({"steps": 151}, "allows 150"),
        ({"width": 4096, "height": 64}, "2048"),
        ({"hires": {"factor": 8}, "width": 1024}, "2048"),
        ({"image": as_base64(picture()), "expand": {"left": 8192}}, "2048"),
        ({"count": 17}, "allows 16"),
        ({"controls": [{"control": "tiny_canny", "hint": MASK}] * 9}, "8"),
        ({"prompt": "a" * 20_001}, "prompt"),
        ({"prompts": "a"}, "no field prompts"),
        ({"cfg": "much"}, "cfg"),
        ({"image": "/etc/passwd"}, "base64|picture"),
        ({"image": "http://127.0.0.1/a.png"}, "Addresses and paths are not opened"),
        ({"image": "file:///etc/passwd"}, "Addresses and paths are not opened"),
        ({"image": ""}, "image"),
        ({"controls": [{"control": "tiny_canny", "hint": MASK, "source": MASK}]}, "one of them"),
        ({"expand": {"left": 8}}, "image"),
        ({"width": 60}, "multiple of 8"),
        ({"sampler": "quick"}, "no scheduler 'quick'"),
    ],
)
def test_generate_refuses_in_one_sentence(client, body, words) -> None:
    import re

    answer = client.post("/api/v1/generate", json={**QUICK, **body})
    if answer.status_code == 202:  # what only the worker can know
        error = ended(client, answer.json())["error"]
    else:
        assert answer.status_code == 422
        error = answer.json()["error"]
    assert re.search(words, error), error
    assert "Traceback" not in error and "\n" not in error and len(error) <= 1100


def test_generate_notes_what_is_not_done(client) -> None:
    job = made(client, prompt="a <lora:absent:1> cat")
    assert any("lora" in note for note in job["notes"])


def test_generate_notes_what_is_left_out_of_a_picture(client) -> None:
    buffer = io.BytesIO()
    frames = [picture(colour=(9 * i, 9, 9)) for i in range(2)]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    job = made(client, image=base64.b64encode(buffer.getvalue()).decode())
    assert any("first frame" in note for note in job["notes"])


@pytest.mark.slow
def test_generate_merges_loras_that_tags_name(server_models, tmp_path) -> None:
    from tests.helpers.tiny_server import running, settings_for

    (tmp_path / "loras").mkdir()
    name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    # Equal weights would sum a layer norm's output, which is 0.
    draw = torch.Generator().manual_seed(0)
    state = {
        f"{name}.lora_A.weight": torch.randn(2, 16, generator=draw),
        f"{name}.lora_B.weight": torch.randn(16, 2, generator=draw),
    }
    save_file(state, tmp_path / "loras" / "style.safetensors")
    settings = settings_for(server_models, tmp_path / "data", loras=(tmp_path / "loras",))
    with running(settings) as client:
        jobs = [
            made(client, prompt=prompt, loras=loras, schedule="trailing")
            for prompt, loras in (
                ("a cat", []),
                ("a cat<lora:style:0.7>", []),
                ("a cat", [{"name": "style", "scale": 0.7}]),
            )
        ]
        plain, tagged, named = (pixels(client, job["results"][0]) for job in jobs)
    assert (plain != tagged).any() and (tagged == named).all()
    assert [job["notes"] for job in jobs] == [[], [], []]


def test_generate_batches_what_differs_in_prompt_seed_and_hint(client, monkeypatch) -> None:
    from zeroconv import generation

    sizes = []
    real = generation.generate

    def counted(backbone, prompt, *args, **more):
        sizes.append(len(prompt))
        return real(backbone, prompt, *args, **more)

    monkeypatch.setattr(generation, "generate", counted)
    jobs = []
    studio = client.app.state.studio
    with studio.jobs.held():  # the worker takes none meanwhile
        for i, prompt in enumerate(("a cat", "a dog", "a red ball")):
            hint = as_base64(picture(colour=(60 * i, 9, 9)))
            control = {"control": "tiny_canny", "source": hint}
            body = {**QUICK, "prompt": prompt, "seed": i, "controls": [control]}
            jobs.append(client.post("/api/v1/generate", json=body).json())
        other = client.post("/api/v1/generate", json={**QUICK, "steps": 2}).json()
    done = [ended(client, job) for job in jobs]
    assert ended(client, other)["state"] == "done"
    assert sizes == [3, 1]
    # what each looks like: see test_batches.py
    assert [job["state"] for job in done] == ["done"] * 3


def test_generate_a_mistake_in_a_batch_is_that_of_one(client, monkeypatch) -> None:
    studio = client.app.state.studio
    with studio.jobs.held():
        good = client.post("/api/v1/generate", json=QUICK).json()
        bad = client.post("/api/v1/generate", json={**QUICK, "prompt": "a \u0000 cat"}).json()
    assert ended(client, good)["state"] == "done"
    assert ended(client, bad)["state"] == "failed"
