"""The folder of a run: one process, one recipe, tried before any work, whatever else lies in it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from tests.training.test_checkpoint import DAMAGE
from zeroconv.errors import UserError
from zeroconv.files import lock_folder
from zeroconv.jsonfile import read_json
from zeroconv.training import train
from zeroconv.training.checkpoint import checkpoints, save_checkpoint
from zeroconv.training.folder import check_folder, open_run
from zeroconv.training.recipes.recipe import Recipe
from zeroconv.training.reporting.report import write_report

Make = Callable[..., Recipe]


def quiet(line: str) -> None:
    pass


def begun(recipe: Recipe, step: int = 6) -> Path:
    """A folder that looks like that of a run with one checkpoint."""
    open_run(recipe)
    save_checkpoint(recipe.out / "checkpoints", step, {"weights": torch.ones(3)}, keep=2)
    return recipe.out


# ---------------------------------------------------------------- one process


def test_a_folder_in_which_another_run_works_is_refused(recipe: Make) -> None:
    made = recipe()
    code = (
        "import sys\nfrom zeroconv.files import lock_folder\n"
        f"with lock_folder({str(made.out)!r}, 'training'):\n"
        "    print('held', flush=True)\n    sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"  # type: ignore[union-attr]
        before = sorted(made.out.iterdir())
        with pytest.raises(UserError, match=rf"another process \({other.pid}, training\) works in"):
            train(made, say=quiet)
        assert sorted(made.out.iterdir()) == before
        other.kill()  # what it leaves does not keep anybody out
    train(recipe(steps=1), say=quiet)


def test_a_folder_is_free_again_when_its_run_ends(recipe: Make) -> None:
    out = train(recipe(steps=1), say=quiet)
    with lock_folder(out, "training"):
        pass
    with pytest.raises(UserError, match="another recipe"):
        train(recipe(steps=1, batch_size=1), say=quiet)
    with lock_folder(out, "training"):
        pass


# ---------------------------------------------------------------- tried before any work


def no_work(*words: object) -> None:
    pytest.fail("this was to be told before any work")


@pytest.mark.parametrize("name", ["recipe.json", "log.jsonl", "summary.json", "report.html"])
def test_run_folder_with_a_folder_for_a_file_is_refused_before_any_work(
    recipe: Make, monkeypatch, name: str
) -> None:
    monkeypatch.setattr("zeroconv.training.assembling.assemble", no_work)
    out = begun(recipe())
    (out / name).unlink(missing_ok=True)
    (out / name).mkdir()
    with pytest.raises(UserError, match=name):
        train(recipe(), say=quiet)


@pytest.mark.parametrize("name", ["checkpoints", "samples", "control", "best", "tensorboard"])
def test_run_folder_with_a_file_for_a_folder_is_refused_before_any_work(
    recipe: Make, monkeypatch, name: str
) -> None:
    monkeypatch.setattr("zeroconv.training.assembling.assemble", no_work)
    out = Path(recipe().out)
    open_run(recipe())
    (out / name).write_text("mine")
    with pytest.raises(UserError, match=name):
        train(recipe(), say=quiet)
    assert (out / name).read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes of that kind")
@pytest.mark.parametrize("name", ["log.jsonl", "summary.json", "recipe.json", "broken.json"])
def test_run_folder_with_a_pipe_for_a_file_is_refused_and_does_not_hang(
    recipe: Make, name: str
) -> None:
    out = begun(recipe())
    (out / name).unlink(missing_ok=True)
    os.mkfifo(out / name)
    with pytest.raises(UserError, match=rf"{name} is no regular file"):
        check_folder(recipe())


@pytest.mark.parametrize("name", ["log.jsonl", "report.html", "samples/step-00000006.png"])
def test_run_folder_with_a_link_to_nowhere_is_refused_and_not_written_through(
    recipe: Make, tmp_path: Path, name: str
) -> None:
    path = begun(recipe()) / name
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=rf"{path.name} is a link to a file that is gone"):
        train(recipe(), say=quiet)
    assert not (tmp_path / "elsewhere").exists()


def test_run_result_that_somebody_put_a_file_into_is_refused_before_any_work(
    recipe: Make, monkeypatch
) -> None:
    out = train(recipe(steps=1), say=quiet)
    (out / "control" / "notes.txt").write_text("mine")
    monkeypatch.setattr("zeroconv.training.assembling.assemble", no_work)
    with pytest.raises(UserError, match=r"control holds notes.txt, which zeroconv did not write"):
        train(recipe(steps=2), say=quiet)
    assert (out / "control" / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_a_run_writes_through_a_link_to_another_disk(recipe: Make, tmp_path: Path) -> None:
    out, elsewhere = Path(recipe().out), tmp_path / "elsewhere"
    elsewhere.mkdir()
    open_run(recipe())
    (out / "checkpoints").symlink_to(elsewhere)
    train(recipe(), say=quiet)
    assert (out / "checkpoints").is_symlink() and checkpoints(elsewhere)


# ---------------------------------------------------------------- one recipe


CHANGES = {
    "learning_rate": {"learning_rate": 1e-4},
    "batch_size": {"batch_size": 3},
    "seed": {"seed": 5},
    "optimizer": {"optimizer": "adafactor"},
    "precision": {"precision": "bf16"},
    "schedule": {"schedule": "cosine"},
    "condition": {"data.condition": "canny"},
    "flip": {"data.flip": True},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_changed_setting_of_a_run_is_refused_with_what_can_be_done(
    recipe: Make, changes: dict
) -> None:
    out = begun(recipe())
    with pytest.raises(UserError) as caught:
        open_run(recipe(**changes))
    sentence = str(caught.value)
    assert f"control.init={out / 'control'}" in sentence and "training.steps=6 ends it" in sentence
    (out / "control").mkdir()
    with pytest.raises(
        UserError, match=r"control.init=\S*control, which begins with .* learned\.$"
    ):
        open_run(recipe(**changes))


def test_another_shape_or_base_cannot_begin_with_what_was_learned(recipe: Make) -> None:
    begun(recipe())
    for changes in ({"control": {"hint_widths": [8, 8, 8, 8]}}, {"base": "playroom"}):
        with pytest.raises(UserError, match="name another out folder") as caught:
            open_run(recipe(**changes))
        assert "control.init=" not in str(caught.value)


def test_several_changed_settings_are_all_named(recipe: Make) -> None:
    begun(recipe())
    with pytest.raises(
        UserError, match=r"training.batch_size was 2, is 1; training.seed was 0, is 1"
    ):
        open_run(recipe(batch_size=1, seed=1))


def test_fewer_steps_than_were_made_are_refused(recipe: Make) -> None:
    begun(recipe(), step=6)
    with pytest.raises(
        UserError, match=r"6 steps already, and training.steps is 3; training.steps=6"
    ):
        open_run(recipe(steps=3))
    open_run(recipe(steps=6))


def test_run_with_all_steps_made_prints_a_sentence(recipe: Make) -> None:
    lines: list[str] = []
    train(recipe(steps=2), say=quiet)
    train(recipe(steps=2), say=lines.append)
    assert "all 2 steps are made already; its results are written anew" in lines


GARBAGE = {
    "empty": b"",
    "text": b"garbage",
    "binary": b"\xff\xfe\x00\x80",
    "nested": b"[" * 100_000,
    "a list": b"[1, 2]",
    "null": b"null",
    "other keys": b'{"a": 1}',
    "no settings": b'{"recipe": 3}',
    "wrong settings": b'{"recipe": {"training": {"steps": "many"}}}',
    "NaN": b'{"recipe": NaN, "status": NaN, "validation": {"gain": NaN}, "evaluation": [Infinity]}',
    "wrong kinds": b'{"recipe": [], "status": 3, "validation": 7, "evaluation": {"metrics": 2}}',
    "cut short": b'{"recipe": {"out": "run", "da',
    "a long number": b"9" * 10_000,
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_damaged_recipe_of_a_run_is_refused_with_a_way_out(recipe: Make, content: bytes) -> None:
    out = begun(recipe())
    (out / "recipe.json").write_bytes(content)
    with pytest.raises(UserError, match=r"recipe.json cannot be read .* remove that file"):
        open_run(recipe())
    (out / "recipe.json").unlink()
    with pytest.warns(UserWarning, match="recipe.json is gone; the recipe given"):
        open_run(recipe())
    assert read_json(out / "recipe.json")["recipe"]["training"]["steps"] == 6


# ---------------------------------------------------------------- whatever the files hold


@pytest.fixture(scope="module")
def ended(
    tmp_path_factory: pytest.TempPathFactory, base: Path, pictures: Path
) -> Callable[[Path], Recipe]:
    """Copies of a run of 4 steps, with 6 to make."""
    import shutil

    from tests.training.conftest import recipes

    folder = tmp_path_factory.mktemp("ended")
    make = recipes(base, pictures, folder)
    settings = {"checkpoint_every": 2, "validate_every": 2, "log_every": 1}
    train(make(steps=4, **settings), say=quiet)

    def copy(to: Path) -> Recipe:
        shutil.copytree(folder / "run", to / "run")
        return make(out=str(to / "run"), steps=6, **settings)

    return copy


@pytest.mark.parametrize("name", ["log.jsonl", "summary.json"])
@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_a_run_goes_on_whatever_its_files_hold(
    ended, tmp_path: Path, monkeypatch, name: str, content: bytes
) -> None:
    """The steps themselves are left out, which is some seconds a case."""
    from zeroconv.training.loop import Loop

    recipe = ended(tmp_path)
    out = Path(recipe.out)
    (out / name).write_bytes(content)
    monkeypatch.setattr(Loop, "run", lambda self: "finished")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(recipe, say=quiet)
    page = (out / "report.html").read_text()
    assert page.count("<table>") == 1
    json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)
    if name == "log.jsonl" and content.strip():
        assert any("cannot be read as a run's" in str(one.message) for one in caught)
        assert content.split(b"\n")[0] in (out / "log.unread").read_bytes()


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_a_tracker_s_damaged_name_is_made_anew(tmp_path: Path, content: bytes) -> None:
    from zeroconv.training.reporting.trackers import _run_id

    (tmp_path / "tracking.json").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        name = _run_id(tmp_path)
    assert name and _run_id(tmp_path) == name


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(
    ended, tmp_path: Path, monkeypatch, damage
) -> None:
    from zeroconv.training.loop import Loop

    recipe, lines = ended(tmp_path), []
    damage(checkpoints(recipe.out / "checkpoints")[0])
    monkeypatch.setattr(Loop, "run", lambda self: "finished")
    with pytest.warns(UserWarning, match="checkpoint is damaged"):
        train(recipe, say=lines.append)
    assert "going on from step 2 of 6" in lines


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A few bytes of a file changed, taken out, or put in."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del data[at : at + rng.randrange(40)]
        elif kind == 2:
            data[at:at] = rng.choice(
                [b"NaN", b"null", b"1e999", b"{}", b"[", b'"', b"\n", b"\xff", b"-"]
            )
        else:
            data[at : at + 3] = rng.choice([b"{}", b"[]", b'"a"', b"-1", b"true"])
    return bytes(data)


def test_no_mutation_of_a_run_s_files_is_a_traceback(ended, tmp_path: Path) -> None:
    """What is read of them when a run goes on, and its page."""
    from zeroconv.training.folder import read_object
    from zeroconv.training.reporting.log import RunLog
    from zeroconv.training.reporting.trackers import scalars
    from zeroconv.training.summary import last_round

    recipe = ended(tmp_path)
    out, rng = Path(recipe.out), random.Random(0)
    names = ("log.jsonl", "summary.json", "recipe.json")
    sound = {name: (out / name).read_bytes() for name in names}
    (out / "log.unread").unlink(missing_ok=True)
    for _ in range(100):
        name = rng.choice(names)
        (out / name).write_bytes(mutated(sound[name], rng))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write_report(out)
            read_object(out / "summary.json")
            lines = RunLog(out / "log.jsonl").read()
            last_round(lines)
            for line in lines:
                scalars(line)
            RunLog(out / "log.jsonl").cut(3)
            with suppress(UserError):
                open_run(recipe)
        for other, content in sound.items():
            (out / other).write_bytes(content)
