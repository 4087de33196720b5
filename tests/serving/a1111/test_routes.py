"""The answers of A1111's addresses, as its clients read them. No model is loaded."""

from __future__ import annotations

import base64
import io
import json
import threading
import time

import numpy as np
import pytest
from PIL import Image

LISTS = "samplers schedulers upscalers latent-upscale-modes sd-models sd-vae sd-modules loras "
LISTS += "hypernetworks face-restorers prompt-styles realesrgan-models script-info"
OBJECTS = "options scripts embeddings memory cmd-flags progress"
POSTS = "refresh-checkpoints refresh-vae refresh-loras interrupt skip"


def opened(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text, validate=True)))


def unit(encoded, picture, **fields) -> dict:
    usual = {"enabled": True, "module": "canny", "model": "canny", "image": encoded(picture)}
    return {**usual, **fields}


@pytest.mark.parametrize("name", LISTS.split())
def test_lists(client, name: str) -> None:
    answer = client.get(f"/sdapi/v1/{name}")
    assert answer.status_code == 200 and isinstance(answer.json(), list)


@pytest.mark.parametrize("name", OBJECTS.split())
def test_objects(client, name: str) -> None:
    answer = client.get(f"/sdapi/v1/{name}")
    assert answer.status_code == 200 and isinstance(answer.json(), dict)


@pytest.mark.parametrize("name", POSTS.split())
@pytest.mark.parametrize("body", [{"json": {}}, {}])
def test_posts_without_a_body(client, name: str, body: dict) -> None:
    assert client.post(f"/sdapi/v1/{name}", **body).status_code == 200


def test_no_paths_of_the_machine_are_told(client) -> None:
    for name in [*LISTS.split(), *OBJECTS.split()]:
        text = client.get(f"/sdapi/v1/{name}").text
        assert str(client.folder) not in text and "assets" not in text


def test_what_is_not_here_is_404(client) -> None:
    for name in ("interrogate", "extra-single-image", "extra-batch-images", "nope"):
        assert client.get(f"/sdapi/v1/{name}").status_code == 404


def test_options_are_set_and_refused(client) -> None:
    assert client.post("/sdapi/v1/options", json={"nope": 1}).json() is None
    wrong = client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "nope"})
    assert wrong.status_code == 422 and "there is no checkpoint" in wrong.json()["detail"]
    titles = [entry["title"] for entry in client.get("/sdapi/v1/sd-models").json()]
    try:
        given = {"sd_model_checkpoint": titles[1], "CLIP_stop_at_last_layers": 2}
        assert client.post("/sdapi/v1/options", json=given).status_code == 200
        options = client.get("/sdapi/v1/options").json()
        assert options.items() >= given.items()
        client.post("/sdapi/v1/txt2img", json={})
        assert client.made[-1].base == titles[1] and client.made[-1].clip_skip == 1
    finally:
        given = {"sd_model_checkpoint": titles[0], "CLIP_stop_at_last_layers": 1}
        client.post("/sdapi/v1/options", json=given)


def test_overrides_stay_only_where_asked(client) -> None:
    overrides = {"override_settings": {"CLIP_stop_at_last_layers": 2}}
    client.post("/sdapi/v1/txt2img", json=overrides)
    assert client.get("/sdapi/v1/options").json()["CLIP_stop_at_last_layers"] == 1
    kept = {**overrides, "override_settings_restore_afterwards": False}
    client.post("/sdapi/v1/txt2img", json=kept)
    assert client.get("/sdapi/v1/options").json()["CLIP_stop_at_last_layers"] == 2
    client.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 1})


def test_txt2img_answers_pictures_then_hints(client, encoded, picture) -> None:
    units = [
        unit(encoded, picture),
        unit(encoded, picture, model="softedge", module="softedge_hed", save_detected_map=False),
        unit(encoded, picture, enabled=False),
    ]
    body = {"prompt": "a ball", "seed": 9, "batch_size": 2, "width": 64, "height": 64}
    body["alwayson_scripts"] = {"cOnTrOlNeT": {"args": units}}
    answer = client.post("/sdapi/v1/txt2img", json=body)
    assert answer.status_code == 200
    images = [opened(text) for text in answer.json()["images"]]
    assert [image.size for image in images] == [(64, 64)] * 3
    assert [image.getpixel((0, 0)) for image in images[:2]] == [(9, 0, 0), (10, 0, 0)]
    assert {0, 255} == set(np.unique(np.asarray(images[2])))  # canny's map

    info = json.loads(answer.json()["info"])
    assert info["all_seeds"] == [9, 10] and info["all_prompts"] == ["a ball"] * 2
    assert info["index_of_first_image"] == 0 and len(info["infotexts"]) == 2
    assert "Seed: 10" in info["infotexts"][1]
    assert images[1].info["parameters"] == info["infotexts"][1]
    assert any("softedge" in note for note in info["notes"])
    assert "Module: canny, Model: canny" in info["extra_generation_params"]["ControlNet 0"]
    parameters = answer.json()["parameters"]
    assert parameters["prompt"] == "a ball" and parameters["alwayson_scripts"] is None


def test_a_seed_by_chance_is_told(client) -> None:
    seeds = {
        json.loads(client.post("/sdapi/v1/txt2img", json={"seed": -1}).json()["info"])["seed"]
        for _ in range(3)
    }
    assert len(seeds) == 3 and all(0 <= seed < 2**32 for seed in seeds)


def test_pictures_are_kept_only_where_asked(client) -> None:
    count = lambda: len(client.app.state.studio.history.search())  # noqa: E731
    before = count()
    client.post("/sdapi/v1/txt2img", json={})
    assert count() == before
    client.post("/sdapi/v1/txt2img", json={"save_images": True, "batch_size": 2})
    assert count() == before + 2


def test_a_job_that_fails_keeps_no_pictures(client) -> None:
    studio = client.app.state.studio
    usual, before = studio.worker.kinds["generate"], len(studio.history.search())

    def failing(jobs) -> None:
        usual(jobs)
        raise RuntimeError("a fault of ours")

    studio.worker.kinds["generate"] = failing
    try:
        answer = client.post("/sdapi/v1/txt2img", json={})
    finally:
        studio.worker.kinds["generate"] = usual
    assert answer.status_code == 500 and answer.json()["detail"].startswith("Internal error")
    assert "a fault of ours" not in answer.text
    assert len(studio.history.search()) == before


def test_pictures_are_left_out_of_the_answer_where_asked(client) -> None:
    answer = client.post("/sdapi/v1/txt2img", json={"send_images": False}).json()
    assert answer["images"] == [] and json.loads(answer["info"])["infotexts"]


def test_img2img_with_a_mask(client, encoded, picture) -> None:
    mask = Image.new("L", (96, 64))
    mask.paste(255, (0, 0, 40, 40))
    body = {"init_images": [encoded(picture)], "mask": encoded(mask), "width": 96, "height": 64}
    answer = client.post("/sdapi/v1/img2img", json=body)
    assert answer.status_code == 200
    assert json.loads(answer.json()["info"])["denoising_strength"] == 0.75
    assert answer.json()["parameters"]["init_images"] is None
    body["include_init_images"] = True
    kept = client.post("/sdapi/v1/img2img", json=body).json()["parameters"]
    assert kept["init_images"] == body["init_images"]


@pytest.mark.parametrize("images", [None, []])
def test_img2img_without_a_picture_is_404(client, images) -> None:
    answer = client.post("/sdapi/v1/img2img", json={"init_images": images})
    assert answer.status_code == 404 and answer.json() == {"detail": "Init image not found"}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"width": 4096}, "allows 512 at most"),
        ({"batch_size": 100}, "allows 4 at most"),
        ({"steps": 100}, "allows 60 at most"),
        ({"alwayson_scripts": {"ADetailer": {"args": [True]}}}, "always on script ADetailer"),
        ({"script_name": "x/y plot"}, "Script 'x/y plot' not found"),
        ({"sampler_name": "nope"}, "There is no scheduler"),
    ],
)
def test_refusals_have_a1111s_shape(client, body: dict, says: str) -> None:
    answer = client.post("/sdapi/v1/txt2img", json=body)
    assert answer.status_code == 422 and says in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {"width": 100_000, "height": 100_000},
        {"enable_hr": True, "hr_scale": 16},
        {"enable_hr": True, "hr_resize_x": 1_000_000},
        {"enable_hr": True, "firstphase_width": 1_000_000, "firstphase_height": 1_000_000},
        {"units": 20},
    ],
)
def test_sizes_are_bounded_before_a_hint_is_drawn_at_them(
    client, encoded, picture, monkeypatch: pytest.MonkeyPatch, body: dict
) -> None:
    from zeroconv.serving.a1111 import generating

    def refuse(*arguments) -> None:
        raise AssertionError("a hint was drawn")

    monkeypatch.setattr(generating, "unit_with_hint", refuse)
    units = [unit(encoded, picture)] * body.get("units", 1)
    sent = {**body, "alwayson_scripts": {"controlnet": {"args": units}}}
    answer = client.post("/sdapi/v1/txt2img", json=sent)
    assert answer.status_code == 422, answer.text
    if "width" in body:
        sent["init_images"] = [encoded(picture)]
        assert client.post("/sdapi/v1/img2img", json=sent).status_code == 422


def test_wrong_types_are_listed_without_their_values(client, encoded, picture) -> None:
    wrong = client.post("/sdapi/v1/img2img", json={"init_images": encoded(picture), "steps": "x"})
    assert wrong.status_code == 422 and encoded(picture) not in wrong.text
    assert {tuple(e["loc"]) for e in wrong.json()["detail"]} == {
        ("body", "init_images"),
        ("body", "steps"),
    }


@pytest.mark.parametrize("content", ["", "{", "null", "[]", '{"steps": NaN}', "[" * 5000])
def test_bodies_that_are_no_object_are_refused(client, content: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = client.post("/sdapi/v1/txt2img", content=content, headers=headers)
    assert answer.status_code in (400, 422) and "detail" in answer.json()


def test_progress_and_interrupt(client) -> None:
    """A request that is interrupted is answered with what is done."""
    studio, begun = client.app.state.studio, threading.Event()
    usual = studio.worker.kinds["generate"]

    def endless(jobs) -> None:
        job = jobs[0]
        job.step, job.steps, job.progress = 3, 10, 0.3
        job.draw_preview = lambda: b"\xff\xd8preview"
        begun.set()
        until = time.monotonic() + 300
        while time.monotonic() < until:
            job.check()
            time.sleep(0.01)

    studio.worker.kinds["generate"] = endless
    answers = []
    asking = threading.Thread(
        target=lambda: answers.append(client.post("/sdapi/v1/txt2img", json={"seed": 1}))
    )
    try:
        asking.start()
        assert begun.wait(20)
        now = client.get("/sdapi/v1/progress").json()
        assert now["progress"] == 0.3 and now["eta_relative"] >= 0
        assert now["state"]["job_count"] == 1
        assert (now["state"]["sampling_step"], now["state"]["sampling_steps"]) == (3, 10)
        assert base64.b64decode(now["current_image"]) == b"\xff\xd8preview"
        without = client.get("/sdapi/v1/progress?skip_current_image=true").json()
        assert without["current_image"] is None
        assert client.post("/sdapi/v1/interrupt").json() == {}
        asking.join(20)
    finally:
        studio.worker.kinds["generate"] = usual
    assert answers[0].status_code == 200 and answers[0].json()["images"] == []
    assert json.loads(answers[0].json()["info"])["interrupted"] is True
    after = client.get("/sdapi/v1/progress").json()
    assert after["state"]["job_count"] == 0 and after["state"]["interrupted"] is True


def test_png_info_reads_what_was_made(client, encoded) -> None:
    made = client.post("/sdapi/v1/txt2img", json={"prompt": "a, b", "seed": 4}).json()["images"][0]
    for text in (made, f"data:image/png;base64,{made}"):
        read = client.post("/sdapi/v1/png-info", json={"image": text}).json()
        assert read["info"].startswith("a, b\n") and read["items"]["parameters"] == read["info"]
        assert read["parameters"]["Prompt"] == "a, b" and read["parameters"]["Seed"] == "4"
    plain = encoded(Image.new("RGB", (8, 8)))
    read = client.post("/sdapi/v1/png-info", json={"image": plain}).json()
    assert read == {"info": "", "items": {}, "parameters": {}}
    assert client.post("/sdapi/v1/png-info", json={"image": "/etc/passwd"}).status_code == 422


# ---------------------------------------------------------------- /controlnet


def test_the_extensions_lists(client) -> None:
    assert client.get("/controlnet/version").json() == {"version": 3}
    assert client.get("/controlnet/settings").json() == {"control_net_unit_count": 3}
    models = client.get("/controlnet/model_list?update=true").json()["model_list"]
    assert "canny" in models
    listed = client.get("/controlnet/module_list?alias_names=false").json()
    assert list(listed["module_detail"]) == listed["module_list"]
    types = client.get("/controlnet/control_types").json()["control_types"]
    assert types["Canny"]["default_model"] == "canny"


@pytest.mark.parametrize("field", ["controlnet_input_images", "controlnet_images"])
def test_detect_draws_a_hint_a_picture(client, encoded, picture, field: str) -> None:
    body = {"controlnet_module": "canny", field: [encoded(picture)] * 2}
    body |= {"controlnet_processor_res": 128, "controlnet_threshold_a": 64}
    answer = client.post("/controlnet/detect", json=body)
    assert answer.status_code == 200 and answer.json()["info"] == "Success"
    assert [opened(text).size for text in answer.json()["images"]] == [(192, 128)] * 2
    assert answer.json()["poses"] == []


def test_detect_gives_the_picture_itself_without_a_module(client, encoded, picture) -> None:
    answer = client.post("/controlnet/detect", json={"controlnet_input_images": [encoded(picture)]})
    made = opened(answer.json()["images"][0])
    assert np.array_equal(np.asarray(made), np.asarray(picture))


def test_detect_reads_a_mask_for_inpainting(client, encoded, picture) -> None:
    mask = Image.new("L", picture.size)
    mask.paste(255, (0, 0, 48, 64))
    body = {"controlnet_module": "inpaint_only", "controlnet_input_images": [encoded(picture)]}
    assert client.post("/controlnet/detect", json=body).status_code == 422
    body["controlnet_masks"] = [encoded(mask)]
    assert opened(client.post("/controlnet/detect", json=body).json()["images"][0]).mode == "RGBA"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"controlnet_module": "nope"}, "Module not available"),
        ({"controlnet_module": "reference_only"}, "Module not available"),
        ({"controlnet_module": "canny"}, "No image selected"),
        ({}, "No image selected"),
    ],
)
def test_detect_refuses_in_the_extensions_words(client, body: dict, says: str) -> None:
    answer = client.post("/controlnet/detect", json=body)
    assert answer.status_code == 422 and answer.json() == {"detail": says}


def test_detect_reads_poses_on_the_workers_thread(
    client, encoded, picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The networks are not on every machine: a reader of one person stands for them."""
    from zeroconv.annotators.pose import Person
    from zeroconv.serving.a1111 import controlnet, modules

    threads = []

    def read(condition: str, image: Image.Image, **parts: bool) -> list[Person]:
        threads.append(threading.current_thread().name)
        points = np.zeros((18, 3), np.float32)
        points[:3] = (30, 20, 1), (30, 40, 1), (20, 40, 1)
        return [Person(points, 1.0)]

    monkeypatch.setattr(modules, "_fetched", lambda network: True)
    monkeypatch.setattr(controlnet, "read", read)
    body = {"controlnet_module": "openpose", "controlnet_input_images": [encoded(picture)]}
    answer = client.post("/controlnet/detect", json=body).json()
    assert threads == ["zeroconv worker"]
    (pose,) = answer["poses"]
    assert (pose["canvas_width"], pose["canvas_height"]) == opened(answer["images"][0]).size
    assert pose["people"][0]["pose_keypoints_2d"][:3] == [30, 20, 1]
    drawn = client.post("/controlnet/render_openpose_json", json=[pose]).json()
    assert drawn["info"] == "Success"
    assert np.array_equal(
        np.asarray(opened(drawn["images"][0])), np.asarray(opened(answer["images"][0]))
    )


def test_poses_are_rendered_within_bounds(client) -> None:
    pose = {"people": [{"pose_keypoints_2d": [10, 10, 1] * 18}]}
    pose |= {"canvas_width": 64, "canvas_height": 48}
    answer = client.post("/controlnet/render_openpose_json", json=[pose, pose]).json()
    assert [opened(text).size for text in answer["images"]] == [(64, 48)] * 2
    empty = client.post("/controlnet/render_openpose_json", json=[])
    assert empty.json() == {"info": "No pose data detected."}
    for wrong in ({**pose, "canvas_width": 10**9}, {**pose, "canvas_width": 5000,
                  "canvas_height": 5000}, {"people": []}, {**pose, "people": 5}):  # fmt: skip
        assert client.post("/controlnet/render_openpose_json", json=[wrong]).status_code == 422
