"""A cache with damaged parts: told, made again, and the same in the end; one that cannot be used is
one sentence.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.tiny import tiny_backbone
from tests.helpers.tiny_cache import limit_shards, noise_pictures
from zeroconv.data import open_dataset
from zeroconv.data.cache.fill import CacheSettings, cache_examples, cache_hints
from zeroconv.data.storage import books, shards
from zeroconv.errors import UserError


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture
def dataset(tmp_path: Path):
    return open_dataset(noise_pictures(tmp_path, 5), condition="canny", size=32)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CacheSettings:
    limit_shards(monkeypatch, 3)
    monkeypatch.setattr(books, "_YOUNG", -1)
    return CacheSettings(tmp_path / "cache", workers=1)


def another_process() -> None:
    shards._book.cache_clear()
    shards._mapped.cache_clear()


DAMAGE = {
    "a broken header": lambda content: b"x" * 8 + content[8:],
    "a flipped bit of data": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "a flipped bit of the note": lambda content: content.replace(b"picture", b"pictuse", 1).replace(
        b'"h', b'"i', 1
    ),
    "cut": lambda content: content[:-7],
    "empty": lambda content: b"",
    "text": lambda content: b"<html>404</html>",
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", ["hints", "moments", "text"])
def test_every_damaged_shard_is_noted_and_made_again(
    kind, damage, dataset, settings, backbone
) -> None:
    sound = cache_examples(dataset, backbone, settings)
    wanted = [np.asarray(sound.moments[range(5)]), np.asarray(sound.hints[range(5)])]
    states = sound.text.states([0, 1, 2]).hidden.clone()
    assert settings.root is not None
    paths = sorted((settings.root / kind).rglob("*.safetensors"))
    for path in paths:
        content = path.read_bytes()
        changed = DAMAGE[damage](content)
        path.write_bytes(changed if changed != content else content[:-1] + bytes([content[-1] ^ 1]))
    another_process()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = cache_examples(dataset, backbone, settings)

    notes = [str(one.message) for one in caught if "damaged" in str(one.message)]
    assert sorted(note.split()[0] for note in notes) == sorted(path.name for path in paths)
    assert all(f"in the cache's {kind} is damaged" in note for note in notes)
    assert np.allclose(again.moments[range(5)], wanted[0], atol=1e-5)
    assert np.array_equal(again.hints[range(5)], wanted[1])
    assert np.allclose(again.text.states([0, 1, 2]).hidden, states, atol=1e-5)
    assert again.prompts(range(5)) == sound.prompts(range(5))

    another_process()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache_examples(dataset, backbone, settings)


BOOKS = {
    "a flipped bit": lambda content: content[:-40] + bytes([content[-40] ^ 1]) + content[-39:],
    "a flipped bit of its header": lambda content: (
        content[:20] + bytes([content[20] ^ 1]) + content[21:]
    ),
    "cut": lambda content: content[:-60],
    "empty": lambda content: b"",
    "a zip": lambda content: b"PK\x03\x04" + content,
    "a pickle": lambda content: b"\x80\x04cos\nsystem\n.",
    "an archive of objects": lambda content: content.replace(b"'<u8'", b"'|O8'"),
    "long": lambda content: content + b"more",
    "of other numbers": lambda content: content.replace(b"digest", b"dijest"),
}


@pytest.mark.parametrize("damage", BOOKS)
@pytest.mark.parametrize("name", ["signatures.npy", "sound.npy"])
def test_every_damaged_book_is_noted_and_made_again(
    name, damage, dataset, settings, backbone
) -> None:
    sound = cache_examples(dataset, backbone, settings)
    another_process()
    cache_examples(dataset, backbone, settings)
    path = settings.root / name
    content = path.read_bytes()
    path.write_bytes(BOOKS[damage](content))
    another_process()
    with pytest.warns(UserWarning, match=f"{name}, is damaged .*; it is made again"):
        again = cache_examples(dataset, backbone, settings)
    assert again.prompts(range(5)) == sound.prompts(range(5))
    assert path.read_bytes() == content


def test_books_of_before_there_were_checksums_are_read(dataset, settings, backbone) -> None:
    cache_examples(dataset, backbone, settings)
    path = settings.root / "signatures.npy"
    table = np.load(path)
    path.unlink()
    np.save(path, table)
    another_process()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache_examples(dataset, backbone, settings)
    table["digest"][0] = b"\xff" * 32
    np.save(path, table)
    with pytest.warns(UserWarning, match="its checksum is another"):
        cache_examples(dataset, backbone, settings)


def test_a_pipe_for_a_book_is_not_waited_for(dataset, settings) -> None:
    cache_hints(dataset, settings)
    another_process()
    (settings.root / "signatures.npy").unlink(missing_ok=True)
    os.mkfifo(settings.root / "signatures.npy")
    with pytest.warns(UserWarning, match="it is no file"):
        assert cache_hints(dataset, settings) == 5


def test_a_cache_that_is_a_file_is_one_sentence(dataset, settings, backbone) -> None:
    settings.root.write_text("a file")
    with pytest.raises(UserError, match="cache is a file; name a folder"):
        cache_examples(dataset, backbone, settings)


def test_complete_cache_that_may_not_be_written_is_read(
    dataset, settings, backbone, monkeypatch
) -> None:
    sound = cache_examples(dataset, backbone, settings)
    another_process()

    def refused(*args, **kwargs):
        raise PermissionError(30, "Read-only file system")

    for module in ("zeroconv.data.storage.shards", "zeroconv.data.storage.books"):
        monkeypatch.setattr(f"{module}.atomic_write", refused)
    again = cache_examples(dataset, backbone, settings)
    assert np.array_equal(again.moments[range(5)], sound.moments[range(5)])


def test_a_disk_that_keeps_nothing_is_one_sentence(
    dataset, settings, backbone, monkeypatch
) -> None:
    write = shards.Store.write

    def lost(self, key, arrays, note=None):
        write(self, key, arrays, note)
        self.path(key).write_bytes(b"")

    monkeypatch.setattr(shards.Store, "write", lost)
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(UserError, match="does not stay"),
    ):
        cache_examples(dataset, backbone, settings)


def test_more_cache_processes_than_cores_are_noted(dataset, settings, monkeypatch) -> None:
    from zeroconv.data.cache import drawing

    monkeypatch.setattr(drawing, "cores", lambda: 1)
    with pytest.warns(UserWarning, match="200 processes are asked for .* so 4 draw"):
        list(drawing.draw_shards(dataset, [range(5)], 200))
