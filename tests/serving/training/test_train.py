"""Training, uploaded data sets and measuring through the server."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.tiny_server import as_base64, ended, made, opened, picture, running, settings_for
from zeroconv.errors import UserError
from zeroconv.serving.catalogue import list_models
from zeroconv.serving.evaluating import measured_control
from zeroconv.serving.settings import ServerSettings
from zeroconv.serving.training import process as training
from zeroconv.serving.training.planning import plan
from zeroconv.serving.training.recipes import recipe_file, recipe_of, write_recipe
from zeroconv.serving.v1.train_schemas import TrainBody
from zeroconv.training.recipes.recipe import parse_recipe

SMALL = {"control": {"hint_widths": [4, 8, 8, 16]}, "examples": 4}
TRAINING = {"batch_size": 2, "validate_every": 2, "sample_count": 2, "sample_steps": 1}


@pytest.fixture(scope="module")
def uploaded(client) -> str:
    items = [
        {"picture": as_base64(picture(colour=(50 * i, 90, 30))), "caption": f"a box, number {i}"}
        for i in range(4)
    ]
    answer = client.post("/api/v1/datasets", json={"name": "boxes", "items": items})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def test_datasets_are_listed_and_stay_within_the_data_folder(client, uploaded, server_data) -> None:
    assert uploaded in [entry["name"] for entry in client.get("/api/v1/models").json()["datasets"]]
    assert (server_data / "datasets" / uploaded / "metadata.jsonl").is_file()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "a" * 61, "a\u0000"])
def test_datasets_refuse_names_that_are_paths(client, name) -> None:
    items = [{"picture": as_base64(picture()), "caption": ""}]
    answer = client.post("/api/v1/datasets", json={"name": name, "items": items})
    assert answer.status_code == 422


def test_train_schema_is_the_recipes_own(client) -> None:
    answer = client.get("/api/v1/train/schema").json()
    training = answer["schema"]["$defs"]["TrainingBody"]["properties"]
    assert training["batch_size"]["maximum"] == 4096 and training["steps"]["default"] == 240
    assert not {"report_to", "threads", "project"} & set(training)
    assert "playroom" in answer["data"] and "canny" in answer["conditions"]


@pytest.mark.slow
def test_train_plan_reckons_memory(client, uploaded) -> None:
    plans = []
    for batch in (2, 8):
        body = {"data": uploaded, **SMALL, "training": {**TRAINING, "batch_size": batch}}
        answer = client.post("/api/v1/train/plan", json=body)
        assert answer.status_code == 200, answer.text
        plans.append(answer.json())
    small, large = (plan["parts"]["activations"] for plan in plans)
    assert 3 < large / small < 5
    assert plans[0]["memory_mb"] >= small + plans[0]["parts"]["program"]
    assert any("fewer than 20" in note for note in plans[0]["notes"])


@pytest.mark.slow
def test_train_plan_counts_the_memory_of_a_reward(tmp_path) -> None:
    values = {"out": str(tmp_path), "data": {"train": "x", "condition": "canny"}}
    recipes = [
        parse_recipe({**values, "training": {"steps": 1, "reward": reward}})
        for reward in (None, {"weight": 1})
    ]
    without, with_reward = map(plan, recipes)
    assert "reward" not in without["parts"]
    more = with_reward["memory_mb"] - without["memory_mb"]
    assert more == pytest.approx(with_reward["parts"]["reward"], abs=1)
    assert more > 10


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 16},
        {"batch_size": 4, "optimizer": "adamw"},
        {"batch_size": 8, "optimizer": "adafactor", "precision": "bf16"},
    ],
    ids=["large batch", "adamw", "bf16"],
)
def test_train_plan_is_what_a_run_takes(tmp_path, settings) -> None:
    """The peak of the process that trains on the playroom, within 20%: what libraries hold differs
    between machines.
    """
    server = ServerSettings(data=tmp_path, device="cpu", dtype="float32")
    training_values = {**settings, "steps": 3, "validate_every": 0, "sample_count": 0}
    body = TrainBody.model_validate(
        {"data": "playroom", "examples": 32, "name": "measured", "training": training_values}
    )
    name, recipe, _ = recipe_of(body.model_dump(), server, list_models(server))
    reckoned = plan(recipe)["memory_mb"]
    path = recipe_file(server, name)
    write_recipe(path, recipe)
    process = training.start_training(path, tmp_path / "log")
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, high_water(process.pid))
        time.sleep(0.02)
    assert process.returncode == 0, (tmp_path / "log").read_text()
    assert reckoned == pytest.approx(peak, rel=0.2)


def high_water(pid: int) -> float:
    """MiB that a process has held at most."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": "/etc"}, "no data set"),
        ({"base": "nobody/nothing"}, "no base"),
        ({"control": {"init": "/etc/passwd"}}, "no control"),
        ({"name": "../x"}, "name"),
        ({"training": {"steps": 1_000_000}}, "most"),
        ({"training": {"optimizer": {"class": "os.system"}}}, "optimizer"),
        ({"training": {"report_to": ["wandb"]}}, "no field"),
        ({"training": {"checkpointing": "much"}}, "checkpointing"),
        ({"condition": "nonsense"}, "nonsense"),
    ],
)
def test_train_refuses_in_one_sentence(client, uploaded, change, words) -> None:
    answer = client.post("/api/v1/train", json={"data": uploaded, **change})
    assert answer.status_code == 422 and words in answer.json()["error"]


def test_train_can_be_switched_off(server_models, tmp_path) -> None:
    settings = settings_for(server_models, tmp_path / "data", allow_training=False)
    with running(settings) as client:
        assert client.get("/api/v1/info").json()["training_allowed"] is False
        for answer in (
            client.post("/api/v1/train", json={"data": "playroom"}),
            client.get("/api/v1/train/schema"),
            client.post("/api/v1/train/runs/x/resume"),
        ):
            assert answer.status_code == 403


def waiting_run(monkeypatch) -> threading.Event:
    """Trainings do nothing until the event is set."""
    release = threading.Event()

    class Process:
        returncode = 0

        def poll(self):
            return 0 if release.is_set() else None

        def wait(self, seconds):
            if not release.wait(seconds):
                raise subprocess.TimeoutExpired("train", seconds)

        def send_signal(self, number):
            release.set()

        kill = release.set

    monkeypatch.setattr(training, "start_training", lambda recipe, log: Process())
    return release


def test_train_a_waiting_run_is_cancelled_while_another_trains(
    client, uploaded, monkeypatch
) -> None:
    release = waiting_run(monkeypatch)
    body = {"data": uploaded, **SMALL}
    try:
        first, second = (
            client.post("/api/v1/train", json={**body, "name": name}).json()
            for name in ("long", "waiting")
        )
        client.delete(f"/api/v1/jobs/{second['id']}")
        assert ended(client, second, 10)["state"] == "cancelled"
        assert client.get(f"/api/v1/jobs/{first['id']}").json()["state"] in ("queued", "running")
    finally:
        release.set()
    assert ended(client, first, 10)["state"] == "done"


def test_train_a_run_that_is_refused_leaves_no_recipe(client, uploaded, monkeypatch) -> None:
    release = waiting_run(monkeypatch)
    monkeypatch.setattr(training, "MOST_WAITING", 0)
    body = {"data": uploaded, **SMALL, "name": "refused"}
    assert client.post("/api/v1/train", json=body).status_code == 429
    assert client.get("/api/v1/train/runs/refused").status_code == 404
    release.set()


def test_train_runs_of_one_name_at_once_are_one(client, uploaded, monkeypatch) -> None:
    release = waiting_run(monkeypatch)
    body = {"data": uploaded, **SMALL, "name": "twins"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: client.post("/api/v1/train", json=body), range(8)))
    release.set()
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 7
    assert ended(client, next(a for a in answers if a.status_code == 202).json(), 10)


def test_train_recipes_can_be_moved_with_the_data_folder(
    client, uploaded, server_data, monkeypatch
) -> None:
    waiting_run(monkeypatch).set()
    body = {"data": uploaded, **SMALL, "name": "movable"}
    job = client.post("/api/v1/train", json=body).json()
    assert ended(client, job, 10)["state"] == "done"
    text = (server_data / "runs" / "movable.json").read_text()
    assert str(server_data.resolve()) not in text and str(server_data) not in text
    values = json.loads(text)
    assert values["out"] == "./movable" and values["data"]["cache"] == "../cache"
    assert (server_data / "runs" / values["data"]["train"][0].partition("?")[0]).is_dir()
    shown = client.get("/api/v1/train/runs/movable").json()
    assert shown["recipe"]["data"]["train"] == [uploaded] and shown["base"] == "base"
    assert "/" not in shown["recipe"]["base"] and "out" not in shown["recipe"]
    # going on writes it as it was
    job = client.post("/api/v1/train/runs/movable/resume", json={"steps": 300}).json()
    assert ended(client, job, 10)["state"] == "done"
    again = json.loads((server_data / "runs" / "movable.json").read_text())
    assert again.pop("training")["steps"] == 300 and values.pop("training")["steps"] == 240
    assert Path(again.pop("out")) == Path(values.pop("out"))
    assert again == values


@pytest.mark.slow
def test_train_a_run_is_stopped_resumed_and_its_control_used(client, uploaded) -> None:
    body = {"name": "first", "data": uploaded, **SMALL}
    body["training"] = {**TRAINING, "steps": 4000, "checkpoint_every": 1000, "sample_every": 0}
    answer = client.post("/api/v1/train", json=body)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert client.post("/api/v1/train", json=body).status_code == 409
    until = time.monotonic() + 300
    while client.get("/api/v1/train/runs/first").json()["step"] < 5:
        assert time.monotonic() < until, client.get(f"/api/v1/jobs/{job['id']}").json()
        time.sleep(0.3)
    running_now = client.get("/api/v1/train/runs/first").json()
    assert running_now["state"] == "running" and running_now["job"] == job["id"]
    assert client.post("/api/v1/train/runs/first/stop").status_code == 200
    assert ended(client, job)["state"] == "cancelled"
    stopped = client.get("/api/v1/train/runs/first").json()
    assert stopped["state"] == "stopped" and stopped["control"] is None
    assert len(stopped["loss"]) >= 2 and stopped["hint_gain"]

    steps = stopped["step"] + 3
    job = client.post("/api/v1/train/runs/first/resume", json={"steps": steps}).json()
    job = ended(client, job, 120)
    assert job["state"] == "done", job
    done = client.get("/api/v1/train/runs/first").json()
    assert done["state"] == "done" and done["step"] == steps and done["control"] == "runs/first"
    sheet = client.get(done["samples"][-1])
    assert sheet.status_code == 200 and opened(sheet.content).width > 64
    hint = {"control": "runs/first", "source": as_base64(picture())}
    assert made(client, controls=[hint])["results"]
    further = {**body, "name": "further", "control": {"init": "runs/first"}}
    further["training"] = {**TRAINING, "steps": 2}
    job = ended(client, client.post("/api/v1/train", json=further).json(), 120)
    assert job["state"] == "done", job
    shown = client.get("/api/v1/train/runs/further").json()
    assert shown["recipe"]["control"]["init"] == "runs/first"
    names = [run["name"] for run in client.get("/api/v1/train/runs").json()["runs"]]
    assert names[:2] == ["further", "first"]


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 1.0, 4.0])
def test_train_a_run_is_cancelled_soon_at_any_time(client, uploaded, seconds) -> None:
    """While Python imports, while the data is read, while it trains: as soon as it is asked to."""
    body = {"data": uploaded, **SMALL, "training": {**TRAINING, "steps": 5000}}
    job = client.post("/api/v1/train", json=body).json()
    while client.get(f"/api/v1/jobs/{job['id']}").json()["state"] == "queued":
        time.sleep(0.01)
    time.sleep(seconds)
    began = time.monotonic()
    client.delete(f"/api/v1/jobs/{job['id']}")
    job = ended(client, job)
    assert job["state"] == "cancelled" and job["error"] is None, job
    assert time.monotonic() - began < training.SECONDS_TO_SAVE  # it was not killed


@pytest.mark.slow
def test_evaluate_reports_floor_control_and_ceiling(client, uploaded) -> None:
    body = {"control": "tiny_canny", "data": uploaded, "count": 2, "steps": 1}
    answer = client.post("/api/v1/evaluate", json=body)
    assert answer.status_code == 202, answer.text
    job = ended(client, answer.json())
    assert job["state"] == "done", job
    rows = {row["metric"]: row for row in job["result"]["table"]}
    assert rows["f1"]["ceiling"]["mean"] is not None and rows["f1"]["floor"] is not None
    groups = job["result"]["pictures"]
    assert set(groups) == {"best", "median", "worst"} and groups["best"]
    for name in ("hint", "read", "made", "real"):
        image = opened(client.get(groups["best"][0][name]).content)
        assert image.size == (64, 64)


def test_evaluate_is_cancelled_at_its_next_step(client, uploaded, monkeypatch) -> None:
    """The measurement waits inside of its third step until it is cancelled, and takes no fourth."""
    from zeroconv import evaluation

    steps, waits, goes_on = [], threading.Event(), threading.Event()
    real = evaluation.evaluate

    def watched(*args, callback, **more):
        def heard(step, total, latents):
            steps.append(step)
            if len(steps) == 3:
                waits.set()
                assert goes_on.wait(30)
            callback(step, total, latents)

        return real(*args, callback=heard, **more)

    monkeypatch.setattr(evaluation, "evaluate", watched)
    body = {"control": "tiny_canny", "data": uploaded, "count": 4, "steps": 20}
    job = client.post("/api/v1/evaluate", json=body).json()
    assert waits.wait(30)
    assert client.get(f"/api/v1/jobs/{job['id']}").json()["state"] == "running"
    client.delete(f"/api/v1/jobs/{job['id']}")
    goes_on.set()
    job = ended(client, job)
    assert job["state"] == "cancelled" and job["result"] is None and job["error"] is None
    assert len(steps) == 3
    assert made(client)["results"]  # the worker goes on


def test_evaluate_refuses_names_that_are_not_listed(client) -> None:
    for body in (
        {"control": "/etc/passwd", "data": "playroom"},
        {"control": "tiny_canny", "data": "https://example.com/x.tar"},
    ):
        assert client.post("/api/v1/evaluate", json=body).status_code == 422


@pytest.fixture(scope="module")
def union(server_models, tmp_path_factory):
    """A server with a Union control beside one that does not say what its hints show."""
    from tests.helpers.tiny import randomise_
    from zeroconv.backbones import load_backbone
    from zeroconv.control import ControlNet
    from zeroconv.control.union import ControlNetUnion

    folder = tmp_path_factory.mktemp("unions")
    base = load_backbone(str(server_models / "base"))
    randomise_(ControlNetUnion.from_backbone(base)).save(folder / "both")
    randomise_(ControlNet.from_backbone(base)).save(folder / "silent")
    controls = (str(folder / "both"), str(folder / "silent"))
    settings = settings_for(server_models, folder / "data", controls=controls)
    with running(settings) as client:
        yield client


@pytest.mark.parametrize(
    ("asked", "shown", "condition"),
    [
        ({"control": "both:canny"}, "both:canny", "canny"),
        ({"control": "both", "condition": "softedge"}, "both:softedge", "softedge"),
        ({"control": "silent", "condition": "lineart"}, "silent:lineart", "lineart"),
    ],
)
def test_evaluate_measures_the_kind_that_is_asked_for(
    union, monkeypatch, asked, shown, condition
) -> None:
    """As `zeroconv evaluate NAME:KIND` and `--condition` do; what is measured is cut short."""
    from zeroconv import evaluation
    from zeroconv.evaluation.controls import condition_of, of_condition

    seen = []

    def measured(net, *, base, condition, fast, **more):
        net = of_condition(net, base, condition)
        seen.append((condition_of(net, condition), fast))
        raise UserError("enough")

    monkeypatch.setattr(evaluation, "evaluate", measured)
    answer = union.post("/api/v1/evaluate", json={"data": "playroom", "fast": "x2", **asked})
    assert answer.status_code == 202, answer.text
    assert ended(union, answer.json())["error"] == "enough"
    assert seen == [(condition, "deep=2,branch=2,difference=2")]
    names = union.app.state.studio.catalogue
    assert measured_control(names, asked["control"], asked.get("condition")).shown == shown


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"control": "both"}, "one kind is measured: send both:KIND"),
        ({"control": "both:shuffle"}, "no kind 'shuffle'"),
        ({"control": "both", "condition": "zzz"}, "no kind 'zzz'"),
        ({"control": "silent", "condition": "zzz"}, "zzz"),
        ({"control": "nothing:canny"}, "no control"),
        ({"control": "silent"}, "does not say what its hints show"),
        ({"control": "silent:canny"}, "only a Union control has kinds"),
    ],
)
def test_evaluate_refuses_kinds_that_there_are_not(union, asked, words) -> None:
    answer = union.post("/api/v1/evaluate", json={"data": "playroom", "count": 2, **asked})
    late = answer.status_code == 202  # what the worker alone knows
    error = ended(union, answer.json())["error"] if late else answer.json()["error"]
    assert words in error


def test_annotated_pictures_are_those_of_annotate(client) -> None:
    from zeroconv.annotators import annotate

    body = {"condition": "canny", "picture": as_base64(picture()), "options": {"low": 50}}
    hint = client.post("/api/v1/annotate", json=body).json()["hint"]
    import base64

    drawn = opened(base64.b64decode(hint.partition(",")[2]))
    np.testing.assert_array_equal(
        np.asarray(drawn), np.asarray(annotate("canny", picture(), low=50))
    )
    assert isinstance(drawn, Image.Image)
