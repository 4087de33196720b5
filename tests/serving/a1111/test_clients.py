"""Two clients of A1111's interface, unchanged from their packages, against a real server on a
loopback port: webuiapi and sd-backend-client. `make api-test`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zeroconv.conditions import annotate, edge_f1
from zeroconv.playroom import render_image, split_seeds

pytestmark = pytest.mark.api
webuiapi = pytest.importorskip("webuiapi")
backend = pytest.importorskip("sd_backend_client.api.a1111_webservice")

SIDE = 128
ROOM = render_image(split_seeds("test", 1)[0], SIDE)
PROMPT = ROOM[1]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server in a process of its own, on a free port."""
    folder: Path = tmp_path_factory.mktemp("api")
    command = [sys.executable, "-m", "zeroconv.cli", "serve", "--port", "0", "--data", "data"]
    log = (folder / "log.txt").open("wb")
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
    try:
        until = time.monotonic() + 300
        match = None
        while match is None:
            text = (folder / "log.txt").read_text()
            assert process.poll() is None and time.monotonic() < until, text
            match = re.search(r"http://127\.0\.0\.1:\d+", text)
            time.sleep(0.1)
        yield match[0]
    finally:
        process.terminate()
        assert process.wait(60) in (0, 143)
        log.close()


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """A room that no model was trained on."""
    return Image.fromarray(ROOM[0])


@pytest.fixture(scope="module")
def web(address: str) -> Any:
    return webuiapi.WebUIApi(baseurl=f"{address}/sdapi/v1", sampler="Euler a", steps=20)


@pytest.fixture(scope="module")
def service(address: str) -> Any:
    return backend.A1111Webservice(address)


def web_units(photo: Image.Image) -> list[Any]:
    return [
        webuiapi.ControlNetUnit(image=photo, module="canny", model="canny", processor_res=SIDE,
                                threshold_a=100, threshold_b=200),
        webuiapi.ControlNetUnit(image=photo, module="softedge_pidinet", model="softedge",
                                weight=0.5, guidance_end=0.8, control_mode=1, pixel_perfect=True),
    ]  # fmt: skip


def service_units(service: Any, photo: Image.Image) -> list[Any]:
    from sd_backend_client.api.shared_data.controlnet.controlnet_model import ControlNetModel
    from sd_backend_client.api.shared_data.controlnet.controlnet_preprocessor import (
        PreprocessorParams,
    )
    from sd_backend_client.api.shared_data.controlnet.controlnet_unit import ControlNetUnit

    known = {one.name: one for one in service.get_controlnet_preprocessors()}
    return [
        ControlNetUnit(
            image=photo,
            preprocessor=PreprocessorParams(typedef=known[module], parameter_values={}),
            model=ControlNetModel(model),
        )
        for module, model in (("canny", "canny"), ("softedge_pidinet", "softedge"))
    ]


def same(one: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(one.convert("RGB")), np.asarray(other.convert("RGB")))


def follows(made: Image.Image, hint: Image.Image) -> float:
    drawn = np.asarray(annotate("canny", made.convert("RGB")))[..., 0]
    return edge_f1(np.asarray(hint.convert("L")), drawn)


# ---------------------------------------------------------------- webuiapi


def test_webuiapi_reads_every_list(web: Any) -> None:
    assert web.has_controlnet and not web.has_adetailer
    assert "playroom" in web.util_get_model_names()
    assert web.util_get_current_model() == "playroom"
    assert {"Euler a", "DPM++ 2M"} <= set(web.util_get_sampler_names())
    assert "karras" in web.util_get_scheduler_names()
    assert "Lanczos" in [entry["name"] for entry in web.get_upscalers()]
    assert "Latent" in [entry["name"] for entry in web.get_latent_upscale_modes()]
    for name in ("loras", "sd_vae", "hypernetworks", "face_restorers", "realesrgan_models",
                 "prompt_styles"):  # fmt: skip
        assert isinstance(getattr(web, f"get_{name}")(), list), name
    for name in ("cmd_flags", "embeddings", "memory", "scripts", "progress", "options"):
        assert isinstance(getattr(web, f"get_{name}")(), dict), name
    assert web.refresh_checkpoints() is None
    web.util_set_model("playroom")
    assert web.controlnet_version() == 3
    assert {"canny", "softedge", "pose"} <= set(web.controlnet_model_list())
    assert "canny" in web.controlnet_module_list()


def test_webuiapi_txt2img_with_two_units(web: Any, photo: Image.Image) -> None:
    result = web.txt2img(
        prompt=PROMPT, seed=5, width=SIDE, height=SIDE, n_iter=2, controlnet_units=web_units(photo)
    )
    assert len(result.images) == 4  # two pictures, two hints
    assert all(image.size == (SIDE, SIDE) for image in result.images)
    assert result.info["all_seeds"] == [5, 6] and result.parameters["seed"] == 5
    assert same(result.images[2], annotate("canny", photo))
    without = web.txt2img(prompt=PROMPT, seed=5, width=SIDE, height=SIDE)
    assert len(without.images) == 1
    hint = result.images[2]  # at A1111's cfg of 7, which is more than the playroom's own
    assert follows(result.images[0], hint) > follows(without.image, hint) + 0.2
    again = web.txt2img(
        prompt=PROMPT, seed=6, width=SIDE, height=SIDE, controlnet_units=web_units(photo)
    )
    assert np.abs(pixels(again.image) - pixels(result.images[1])).max() <= 1


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(int)


def test_webuiapi_txt2img_with_a_second_pass(web: Any, photo: Image.Image) -> None:
    result = web.txt2img(
        prompt=PROMPT, seed=5, width=64, height=64, steps=6, enable_hr=True, hr_scale=2,
        hr_upscaler=webuiapi.HiResUpscaler.Latent, denoising_strength=0.6,
        controlnet_units=web_units(photo),
    )  # fmt: skip
    assert result.image.size == (128, 128)


def test_webuiapi_img2img_with_two_units(web: Any, photo: Image.Image) -> None:
    asked = {"prompt": PROMPT, "seed": 1, "width": SIDE, "height": SIDE, "steps": 10}
    units = web_units(photo)
    units[0].image = None  # the picture to start from
    result = web.img2img(images=[photo], controlnet_units=units, **asked)
    assert len(result.images) == 3 and result.info["denoising_strength"] == 0.75
    assert same(result.images[1], annotate("canny", photo))


def test_webuiapi_paints_a_mask(web: Any, photo: Image.Image) -> None:
    mask = Image.new("RGB", photo.size)
    mask.paste("white", (40, 40, 100, 100))
    asked = {"prompt": PROMPT, "seed": 1, "width": SIDE, "height": SIDE, "steps": 10}
    for whole in (True, False):
        result = web.img2img(
            images=[photo], mask_image=mask, mask_blur=2, inpainting_fill=1,
            inpaint_full_res=whole, inpaint_full_res_padding=16, **asked,
        )  # fmt: skip
        made, before = np.asarray(result.image.convert("RGB")), np.asarray(photo)
        assert np.array_equal(made[:39], before[:39])
        assert not np.array_equal(made[45:95, 45:95], before[45:95, 45:95])
    inverted = web.img2img(
        images=[photo], mask_image=mask, mask_blur=0, inpainting_mask_invert=1,
        inpaint_full_res=False, inpainting_fill=1, **asked,
    )  # fmt: skip
    made = np.asarray(inverted.image.convert("RGB"))
    assert np.array_equal(made[45:95, 45:95], np.asarray(photo)[45:95, 45:95])


def test_webuiapi_detects(web: Any, photo: Image.Image) -> None:
    result = web.controlnet_detect([photo], module="canny", processor_res=128, threshold_a=100,
                                   threshold_b=200)  # fmt: skip
    assert result.info == "Success" and same(result.image, annotate("canny", photo))
    with pytest.raises(RuntimeError, match="Module not available"):
        web.controlnet_detect([photo], module="nope")


def test_webuiapi_reads_the_settings_of_what_was_made(web: Any) -> None:
    made = web.txt2img(prompt="a ball, red", seed=8, width=64, height=64, steps=3).image
    read = web.png_info(made)
    assert "a ball, red" in read.info and "Seed: 8" in read.info
    assert read.parameters["Steps"] == "3" and read.parameters["Sampler"] == "Euler a"


def test_webuiapi_sees_progress_and_interrupts(web: Any, address: str) -> None:
    results: list[Any] = []

    def ask() -> None:
        other = webuiapi.WebUIApi(baseurl=f"{address}/sdapi/v1")
        results.append(other.txt2img(prompt=PROMPT, width=256, height=256, steps=150))

    asking = threading.Thread(target=ask)
    asking.start()
    seen: list[float] = []
    until = time.monotonic() + 300
    picture = None
    while time.monotonic() < until and asking.is_alive():
        progress = web.get_progress()
        if progress["state"]["sampling_step"] > 2:
            seen.append(progress["progress"])
            picture = picture or progress["current_image"]
        if len(seen) > 3 and picture:
            assert progress["state"]["job_count"] == 1 and progress["eta_relative"] > 0
            assert web.interrupt() == {}
            break
        time.sleep(0.05)
    asking.join(60)
    assert not asking.is_alive() and seen == sorted(seen) and 0 < seen[-1] < 1 and picture
    assert results[0].images == [] and results[0].info["interrupted"]
    assert web.get_progress()["state"]["job_count"] == 0
    assert web.skip() == {}


def test_a_request_whose_client_left_is_cancelled(web: Any, address: str) -> None:
    import requests

    body = {"prompt": PROMPT, "width": 256, "height": 256, "steps": 150, "batch_size": 8}
    with pytest.raises(requests.Timeout):
        requests.post(f"{address}/sdapi/v1/txt2img", json=body, timeout=2)
    until = time.monotonic() + 300
    while web.get_progress()["state"]["job_count"] and time.monotonic() < until:
        time.sleep(0.1)
    assert web.get_progress()["state"]["job_count"] == 0


def test_webuiapi_logs_in_by_a_token(tmp_path: Path) -> None:
    """Basic authentication, whose password is the server's token."""
    from zeroconv.serving.security import knows_token

    session = webuiapi.WebUIApi(baseurl="http://127.0.0.1:9/sdapi/v1").session
    session.auth = ("anyone", "a-long-token")
    prepared = session.prepare_request(__import__("requests").Request("GET", "http://127.0.0.1:9"))
    headers = {key.lower(): value for key, value in prepared.headers.items()}
    assert knows_token(headers, "a-long-token") and not knows_token(headers, "another-token")


# ---------------------------------------------------------------- sd-backend-client


def test_backend_client_reads_every_list(service: Any) -> None:
    can = service.get_capabilities()
    assert can.controlnet and can.scheduler
    assert not (can.interrogate or can.ultimate_upscale or can.soft_inpainting)
    assert "playroom" in [one.name for one in service.list_checkpoints()]
    assert "euler_ancestral" in [one.name for one in service.list_samplers()]
    assert "karras" in [one.name for one in service.list_schedulers()]
    assert "Lanczos" in [one.name for one in service.list_upscalers()]
    assert service.list_vaes() == service.list_loras() == service.list_hypernetworks() == []
    assert service.get_styles() == [] and service.get_script_info()
    assert "canny" in [one.full_model_name for one in service.list_controlnet_models()]
    assert service.get_controlnet_version() == 3
    assert service.get_controlnet_settings() == {"control_net_unit_count": 3}
    known = {one.name: one for one in service.get_controlnet_preprocessors()}
    values = {one.key: one.default_value for one in known["canny"].parameters}
    assert (values["threshold_a"], values["threshold_b"]) == (100, 200)
    assert values["processor_res"] == SIDE
    types = service.get_controlnet_type_categories()
    assert types["Canny"]["default_option"] == "canny" and "SoftEdge" in types
    service.set_config({"CLIP_stop_at_last_layers": 1})
    assert service.get_config()["sd_model_checkpoint"] == "playroom"
    for refresh in (service.refresh_checkpoints, service.refresh_vae, service.refresh_loras):
        assert refresh().ok


def test_backend_client_txt2img_with_two_units(service: Any, web: Any, photo: Image.Image) -> None:
    from sd_backend_client.api.webui.diffusion_request_body import DiffusionRequestBody

    body = DiffusionRequestBody(
        prompt=PROMPT, seed=5, width=SIDE, height=SIDE, steps=20, batch_size=2,
        scheduler="karras", sampler="dpmpp_2m", sd_model_name="playroom",
        controlnet_units=service_units(service, photo),
    )  # fmt: skip
    result = service.submit_txt2img(body).wait(timeout=300)
    assert len(result.images) == 2 and len(result.control_maps) == 2
    assert result.seeds == [5, 6] and result.raw_info.sd_model_name == "playroom"
    assert follows(result.images[0], result.control_maps[0]) > 0.4
    assert same(result.control_maps[0], annotate("canny", photo))
    plain = service.txt2img(DiffusionRequestBody(prompt=PROMPT, seed=5, width=SIDE, height=SIDE,
                                                 steps=8, sampler="euler"))  # fmt: skip
    other = web.txt2img(prompt=PROMPT, seed=5, width=SIDE, height=SIDE, steps=8,
                        sampler_name="Euler", scheduler="normal")  # fmt: skip
    assert same(plain["images"][0], other.image)  # what one client gets, the other gets


def test_backend_client_img2img_with_two_units(service: Any, photo: Image.Image) -> None:
    from sd_backend_client.api.shared_data.diffusion_params import DiffusionParams

    units = service_units(service, photo)
    asked = {"prompt": PROMPT, "seed": 5, "width": SIDE, "height": SIDE, "steps": 10}
    params = DiffusionParams(init_images=[photo], controlnet_units=units, **asked)
    result = service.submit_img2img(params).wait(timeout=300)
    assert len(result.images) == 1 and len(result.control_maps) == 2
    mask = Image.new("L", photo.size)
    mask.paste(255, (40, 40, 100, 100))
    params = DiffusionParams(
        init_images=[photo], mask=mask, inpaint_full_res=True, mask_blur=2, **asked
    )
    made = np.asarray(service.submit_inpaint(params).wait(timeout=300).images[0].convert("RGB"))
    assert np.array_equal(made[:39], np.asarray(photo)[:39])


def test_backend_client_previews_a_preprocessor(service: Any, photo: Image.Image) -> None:
    known = {one.name: one for one in service.get_controlnet_preprocessors()}
    result = service.submit_preprocessor_preview(photo, known["canny"]).wait(timeout=300)
    assert same(result.images[0], annotate("canny", photo))


def test_backend_client_polls_and_cancels(service: Any) -> None:
    from sd_backend_client.api.shared_data.generation_handle import GenerationStatus
    from sd_backend_client.api.webui.diffusion_request_body import DiffusionRequestBody

    body = DiffusionRequestBody(prompt=PROMPT, width=256, height=256, steps=150)
    handle = service.submit_txt2img(body)
    until = time.monotonic() + 300
    while time.monotonic() < until:
        now = handle.poll()
        if now.status is GenerationStatus.ACTIVE and (now.progress or 0) > 0.02 and now.preview:
            break
        time.sleep(0.05)
    assert now.preview is not None and now.eta_seconds > 0
    assert handle.cancel()
    while handle.poll().status is GenerationStatus.ACTIVE and time.monotonic() < until:
        time.sleep(0.05)
    assert handle.poll().status is GenerationStatus.CANCELLED
