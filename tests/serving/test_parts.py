"""Parts of the server without a server: models within a budget, batches, notes, names, pictures."""

from __future__ import annotations

import shutil
import threading
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.tiny import tiny_vae
from tests.helpers.tiny_server import as_base64, picture, settings_for
from zeroconv.backbones import load_backbone
from zeroconv.serving import notes as notes_of
from zeroconv.serving.catalogue import list_models
from zeroconv.serving.errors import sentence_of
from zeroconv.serving.generation import Generation, Unit
from zeroconv.serving.jobs.job import Job
from zeroconv.serving.jobs.queue import Jobs
from zeroconv.serving.jobs.worker import Worker, joins
from zeroconv.serving.models import Models, bytes_of
from zeroconv.serving.notes import noted
from zeroconv.serving.pixels import picture_bytes, read_picture
from zeroconv.serving.settings import ServerSettings
from zeroconv.serving.training.recipes import recipe_of
from zeroconv.serving.v1.train_schemas import TrainBody

# ---------------------------------------------------------------- models


@pytest.fixture(scope="module")
def base(server_models):
    """A tiny base, loaded once."""
    return load_backbone(server_models / "base")


@pytest.fixture
def models_with(server_models, tmp_path, base):
    """Makes `Models` with a budget in bytes."""

    def make(memory: int) -> Models:
        settings = settings_for(server_models, tmp_path, memory=memory)
        models = Models(settings, list_models(settings))
        models._load_base = lambda name, loras: base  # type: ignore[method-assign]
        return models

    return make


def test_files_of_the_first_base_are_read(server_models, tmp_path) -> None:
    """--vae, --lora and the like of `studio` and `serve` belong to --base alone."""
    tiny_vae(seed=9).save_pretrained(tmp_path / "vae")
    base = server_models / "base"
    other = shutil.copytree(base, tmp_path / "other")
    files = {"vae": str(tmp_path / "vae")}
    settings = settings_for(server_models, tmp_path, files=files, bases=(str(other),))
    catalogue = list_models(settings)
    models = Models(settings, catalogue)
    first, second = models.base("base").vae.state_dict(), models.base("other").vae.state_dict()
    name = "decoder.conv_in.weight"
    given = load_backbone(base, **files).vae.state_dict()[name]
    assert torch.equal(first[name], given) and not torch.equal(second[name], given)

    body = {**TrainBody(condition="canny", data="playroom", base="base").model_dump(), "name": "x"}
    _, recipe, _ = recipe_of(body, settings, catalogue)
    assert recipe.base_files.options() == files


def test_models_are_kept_within_the_budget(models_with) -> None:
    models = models_with(2**40)
    base = models.base("base")
    sizes = {name: bytes_of(models.control(name, "base")) for name in ("tiny_canny", "tiny_depth")}
    assert models.base("base") is base
    assert models.held() == bytes_of(base) + sum(sizes.values())

    models = models_with(bytes_of(base) + sizes["tiny_canny"] + 1000)
    canny, depth = (models.control(name, "base") for name in sizes)
    assert models.held() <= models.budget
    assert models.control("tiny_depth", "base") is depth
    assert models.control("tiny_canny", "base") is not canny


def test_models_of_a_run_are_loaded_anew_when_it_went_on(models_with) -> None:
    models = models_with(1)
    canny = models.control("tiny_canny", "base")  # what is needed is kept beyond the budget too
    assert models.control("tiny_canny", "base") is canny
    models.forget("tiny_canny")
    assert models.control("tiny_canny", "base") is not canny


def test_models_bytes_count_shared_weights_once() -> None:
    layer = torch.nn.Linear(10, 10, bias=False)
    both = torch.nn.ModuleList([layer, layer])
    assert bytes_of(both) == bytes_of(layer) == 400


# ---------------------------------------------------------------- batches


def ready(**more) -> Job:
    return Job("generate", Generation(**{"prompt": "a", "base": "base", "seed": 1, **more}))


def unit(size=(64, 64), **more) -> Unit:
    return Unit("canny", hint=Image.new("L", size), **more)


@pytest.mark.parametrize(
    ("other", "together"),
    [
        ({"prompt": "b", "seed": 5, "negative": "x"}, True),
        ({"previews": True}, True),
        ({"steps": 3}, False),
        ({"cfg": 3.0}, False),
        ({"width": 64}, False),
        ({"base": "other"}, False),
        ({"loras": [("x", 1.0)]}, False),
        ({"tagged": [("x", 1.0, 1.0)]}, False),
        ({"image": Image.new("RGB", (8, 8))}, False),
        ({"controls": [unit()]}, False),
        ({"count": 8}, False),
    ],
)
def test_batches_hold_what_differs_in_prompt_seed_and_hint(other, together) -> None:
    assert joins(ready(), ready(**other), 1) is together


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (unit(), unit(), True),
        (unit(), unit((64, 96)), False),  # the hint's shape is that of the picture
        (unit(), unit(scale=0.5), False),
        (unit(), unit(region=Image.new("L", (8, 8))), False),
        (unit(), Unit("canny"), False),
        (unit(), Unit("canny", source=Image.new("RGB", (64, 64))), True),
    ],
)
def test_batches_hold_controls_of_the_same_settings(one, other, together) -> None:
    assert joins(ready(controls=[one]), ready(controls=[other]), 1) is together


def test_batches_of_given_sizes_take_hints_of_any_shape() -> None:
    sized = {"width": 64, "height": 64}
    one, other = ready(controls=[unit()], **sized), ready(controls=[unit((64, 96))], **sized)
    assert joins(one, other, 1)


def test_batches_are_not_larger_than_what_is_computed_at_once() -> None:
    assert joins(ready(), ready(seed=2), 7) and not joins(ready(), ready(seed=2), 8)


def test_worker_lives_on_when_the_history_cannot_be_written() -> None:
    def record(job: Job) -> None:
        raise OSError("disk")

    jobs = Jobs(10, 10, record)
    worker = Worker(jobs, {"call": lambda batch: None})
    worker.start()
    for _ in range(2):
        job = jobs.submit(Job("call", None))
        assert job.ended.wait(10) and job.state == "done"
    jobs.close()
    worker.stop()


# ---------------------------------------------------------------- notes


def test_notes_belong_to_the_thread_that_causes_them() -> None:
    heard: dict[str, list[str]] = {}
    barrier = threading.Barrier(2)

    def work(name: str) -> None:
        with noted() as sentences:
            barrier.wait()
            for _ in range(2):  # the second time nothing is added
                exec(
                    compile(f"import warnings\nwarnings.warn({name!r})", notes_of.__file__, "exec")
                )
            barrier.wait()
            heard[name] = list(sentences)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == {"a": ["a"], "b": ["b"]}


def test_notes_leave_out_what_libraries_say_to_their_developers() -> None:
    with noted() as sentences:
        warnings.warn("of a test, which is not in the package", stacklevel=1)
    assert sentences == []


# ---------------------------------------------------------------- names and pictures


def test_names_of_two_bases_must_differ(server_models, tmp_path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model_index.json").write_text("{}")
    settings = ServerSettings(base=str(server_models / "base"), bases=(str(tmp_path / "base"),))
    with pytest.raises(ValueError, match="have one name, base"):
        list_models(settings)


def test_names_of_loras_and_data_sets_are_those_of_files_and_folders(tmp_path) -> None:
    (tmp_path / "loras" / "people").mkdir(parents=True)
    for name in ("style.safetensors", "people/face.safetensors", "readme.md"):
        (tmp_path / "loras" / name).touch()
    for name in ("cats", "dogs", ".hidden"):
        (tmp_path / "data" / name).mkdir(parents=True)
    settings = ServerSettings(loras=(tmp_path / "loras",), datasets=(tmp_path / "data",))
    names = list_models(settings)
    assert sorted(names.loras) == ["people/face", "style"]
    assert list(names.datasets) == ["playroom", "stickers", "cats", "dogs"]
    (tmp_path / "data" / "a+b").mkdir()
    with pytest.raises(ValueError, match="rename it"):
        list_models(settings)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("wrap", ["{}", "data:image/png;base64,{}", "{}\n", "data:;base64,{}"])
def test_pictures_come_bare_or_as_data_urls(form, wrap) -> None:
    image = read_picture(wrap.format(as_base64(picture(), form)), "it", 10_000)
    assert image.size == (64, 64)
    levels = [np.asarray(one, float) for one in (image.convert("RGB"), picture())]
    assert np.abs(levels[0] - levels[1]).mean() < 2


def test_pictures_of_more_bytes_than_any_could_have_are_not_decoded() -> None:
    with pytest.raises(ValueError, match="too large"):
        picture_bytes("A" * 2_000_000, "it", 10_000)


def test_errors_of_memory_are_a_sentence() -> None:
    for error in (MemoryError(), RuntimeError("[…] DefaultCPUAllocator: can't allocate memory")):
        assert "not enough memory" in sentence_of(error, "x")
    assert "Internal error" in sentence_of(RuntimeError("else"), "x")
