"""The history: search, favourites, deletion, and the settings in pictures."""

from __future__ import annotations

import pytest
from PIL import Image, PngImagePlugin

from tests.helpers.tiny_server import as_base64, made, opened, picture, running, settings_for
from zeroconv.generation.metadata.record import save_picture
from zeroconv.serving.reading import settings_of


@pytest.fixture(scope="module")
def pictures(server_models, tmp_path_factory):
    """A client whose history has three pictures."""
    data = tmp_path_factory.mktemp("history")
    with running(settings_for(server_models, data)) as client:
        for prompt in ("a red ball", "a Blue cube", "100% red_cube"):
            hint = {"control": "tiny_canny", "source": as_base64(picture())}
            made(client, prompt=prompt, steps=1, controls=[hint])
        yield client


def prompts_of(client, **query) -> list[str]:
    return [item["prompt"] for item in client.get("/api/v1/history", params=query).json()["items"]]


@pytest.mark.parametrize(
    ("query", "prompts"),
    [
        ("", ["100% red_cube", "a Blue cube", "a red ball"]),
        ("CUBE", ["100% red_cube", "a Blue cube"]),
        ("red cube", ["100% red_cube"]),
        ("%", ["100% red_cube"]),
        ("d_c", ["100% red_cube"]),
        ("canny blue", ["a Blue cube"]),
        ("' OR 1=1 --", []),
        ("\\", []),
    ],
)
def test_history_is_searched_by_words(pictures, query, prompts) -> None:
    assert prompts_of(pictures, query=query) == prompts


def test_history_is_read_in_pages(pictures) -> None:
    first = pictures.get("/api/v1/history", params={"limit": 2}).json()["items"]
    rest = pictures.get("/api/v1/history", params={"before": first[-1]["number"]}).json()["items"]
    assert [item["prompt"] for item in first + rest] == prompts_of(pictures)


def test_history_keeps_favourites(pictures) -> None:
    item = pictures.get("/api/v1/history").json()["items"][1]
    answer = pictures.patch(f"/api/v1/history/{item['id']}", json={"favourite": True})
    assert answer.json()["favourite"] is True
    assert prompts_of(pictures, favourite=True) == [item["prompt"]]


def test_history_lists_no_pictures_that_are_not_to_be_kept(pictures) -> None:
    (passing,) = made(pictures, prompt="a stroke", steps=1, keep=False)["results"]
    assert "a stroke" not in prompts_of(pictures) and passing["kept"] is False
    assert pictures.get(passing["picture"]).status_code == 200
    entry = pictures.get(f"/api/v1/history/{passing['id']}").json()
    assert entry["settings"]["prompt"] == "a stroke" and "keep" not in entry["settings"]
    answer = pictures.patch(f"/api/v1/history/{passing['id']}", json={"keep": True})
    assert answer.json()["kept"] is True and "a stroke" in prompts_of(pictures)
    pictures.delete(f"/api/v1/history/{passing['id']}")


def test_history_deletes_the_file_too(pictures) -> None:
    item = made(pictures, prompt="a thing to delete", steps=1)["results"][0]
    assert pictures.delete(f"/api/v1/history/{item['id']}").status_code == 200
    assert pictures.get(item["picture"]).status_code == 404
    assert pictures.get(item["thumb"]).status_code == 404
    assert pictures.delete(f"/api/v1/history/{item['id']}").status_code == 404
    assert "a thing to delete" not in prompts_of(pictures)


def test_history_gives_the_hints(pictures) -> None:
    item = pictures.get("/api/v1/history").json()["items"][0]
    hint = pictures.get(f"/api/v1/history/{item['id']}/hints/0.png")
    assert opened(hint.content).size == (64, 64)
    for path in ("hints/1.png", "regions/0.png", "image.png", "mask.png"):
        assert pictures.get(f"/api/v1/history/{item['id']}/{path}").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "pictures/../../history.sqlite.png",
        "pictures/%2e%2e%2fhistory.png",
        "pictures/..%2f..%2fetc%2fpasswd.png",
        "history/%00",
        "history/x/hints/99999999999999999999.png",
        "measured/..%2fhistory.sqlite",
        "train/runs/..%2f..%2fetc",
        "train/runs/x/samples/..%2f..%2fx.png",
    ],
)
def test_history_opens_no_path_of_a_request(pictures, path) -> None:
    answer = pictures.get(f"/api/v1/{path}")
    assert answer.status_code in (404, 422), answer.text
    assert set(answer.json()) == {"error"}


def test_settings_of_our_own_picture_make_it_again(pictures) -> None:
    region = Image.new("L", (64, 64), 255)
    hint = {"control": "tiny_canny", "source": as_base64(picture()), "region": as_base64(region)}
    body = {"image": as_base64(picture((72, 64))), "strength": 0.9, "steps": 2, "seed": 7}
    first = made(pictures, controls=[hint], **body)["results"][0]
    content = pictures.get(first["picture"]).content
    answer = pictures.post("/api/v1/settings", json={"picture": as_base64(opened_png(content))})
    assert answer.status_code == 422  # drawn anew, it says nothing
    answer = pictures.post("/api/v1/settings", json={"picture": raw(content)}).json()
    assert answer["program"] == "zeroconv" and answer["notes"] == []
    second = made(pictures, **answer["settings"])["results"][0]
    one, two = (opened(pictures.get(r["picture"]).content) for r in (first, second))
    assert one.tobytes() == two.tobytes()


def test_settings_of_a_foreign_picture_are_read_with_notes(pictures) -> None:
    text = (
        "a fox\nNegative prompt: blurry\nSteps: 12, Sampler: DPM++ 2M, Schedule type: Karras, "
        "CFG scale: 6.5, Seed: 99, Size: 512x768, Model: somebody's"
    )
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", text)
    import io

    buffer = io.BytesIO()
    picture().save(buffer, "PNG", pnginfo=info)
    answer = pictures.post("/api/v1/settings", json={"picture": raw(buffer.getvalue())}).json()
    settings = answer["settings"]
    assert answer["program"] == "A1111" and answer["notes"]
    assert settings["prompt"] == "a fox" and settings["negative"] == "blurry"
    assert settings["sampler"] == "dpm++2m" and settings["schedule"] == "karras"
    assert (settings["steps"], settings["seed"], settings["cfg"]) == (12, 99, 6.5)
    assert (settings["width"], settings["height"]) == (512, 768)


def raw(content: bytes) -> str:
    import base64

    return base64.b64encode(content).decode()


def opened_png(content: bytes) -> Image.Image:
    image = opened(content)
    image.load()
    plain = Image.new("RGB", image.size)
    plain.paste(image)
    return plain


def test_settings_name_work_that_is_used_again(client, tmp_path) -> None:
    save_picture(picture(), tmp_path / "a.png", {"prompt": "a", "fast": "deep=2"})
    names = client.app.state.studio.catalogue
    read = settings_of((tmp_path / "a.png").read_bytes(), names, 10**6)
    assert read["settings"]["fast"] == "deep=2" and read["notes"] == []
