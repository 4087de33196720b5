"""Shards: what is damaged is told, removed and never taken for what it was; what is sound is
checked once.
"""

from __future__ import annotations

import json
import os
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from zeroconv.data.storage import books, shards
from zeroconv.data.storage.shards import Store, content_key, remember_sound
from zeroconv.errors import UserError

KEY = content_key("a")
ARRAYS = {
    "x": np.arange(60, dtype=np.float32).reshape(5, 12),
    "y": np.arange(40, dtype=np.uint8).reshape(5, 8),
    "none": np.zeros((0, 4), np.float16),
}
NOTE = {"keys": ["é", "b"], "broken": {}}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, bytes]:
    """A store of one shard, and that shard's bytes."""
    store = Store(tmp_path_factory.mktemp("cache"), "things")
    store.write(KEY, ARRAYS, NOTE)
    return store, store.path(KEY).read_bytes()


def put(store: Store, content: bytes) -> None:
    path = store.path(KEY)
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def is_read_exactly(store: Store, content: bytes) -> bool:
    """Whether the shard is read, exactly; else that it was told and removed."""
    put(store, content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            shard = store.read(KEY)
        except KeyError:
            assert (
                len(caught) == 1 and "is damaged" in str(caught[0].message) and not store.has(KEY)
            )
            return False
    assert shard.note == NOTE and set(shard.arrays) == set(ARRAYS) and not caught
    for name, array in ARRAYS.items():
        assert (
            np.array_equal(np.asarray(shard.arrays[name]), array)
            and shard.arrays[name].dtype == array.dtype
        )
    return True


def test_every_flipped_byte_of_a_header_is_noticed(sound: tuple[Store, bytes]) -> None:
    store, content = sound
    length = 8 + int.from_bytes(content[:8], "little")
    for index in range(length):
        for bit in (0, 3, 7):
            changed = bytearray(content)
            changed[index] ^= 1 << bit
            assert not is_read_exactly(store, bytes(changed)), (index, bit)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_damage_to_a_shard_is_noticed(sound: tuple[Store, bytes], data: st.DataObject) -> None:
    store, content = sound
    index = data.draw(st.integers(0, len(content) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "zeros", "insert", "noise", "swap"]))
    changed = {
        "flip": lambda: content[:index] + bytes([content[index] ^ 0x10]) + content[index + 1 :],
        "cut": lambda: content[:index],
        "zeros": lambda: content[:index] + bytes(len(content) - index),
        "insert": lambda: content[:index] + b"\x07" + content[index:],
        "noise": lambda: data.draw(st.binary(max_size=200)),
        "swap": lambda: content[index:] + content[:index],
    }[kind]()
    assert is_read_exactly(store, changed) == (changed == content)


HEADERS: dict[str, Any] = {
    "a list": [],
    "null": None,
    "a number": 1,
    "no entry": {"x": 5},
    "an unknown dtype": {"x": {"dtype": "F128", "shape": [1], "data_offsets": [0, 16]}},
    "a negative place": {"x": {"dtype": "U8", "shape": [4], "data_offsets": [-4, 0]}},
    "a huge shape": {"x": {"dtype": "U8", "shape": [10**12], "data_offsets": [0, 10**12]}},
    "shapes that multiply": {"x": {"dtype": "U8", "shape": [10**30] * 3, "data_offsets": [0, 1]}},
    "a shape of text": {"x": {"dtype": "U8", "shape": ["4"], "data_offsets": [0, 4]}},
    "three places": {"x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4, 8]}},
    "notes that are none": {"__metadata__": {"note": "{"}},
    "notes of another kind": {"__metadata__": 5},
    "unknown notes": {"__metadata__": {"note": "null", "mine": "x"}},
    "deep notes": {"__metadata__": {"note": "[" * 100_000}},
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_of_another_kind_is_damage(sound: tuple[Store, bytes], name: str) -> None:
    head = json.dumps(HEADERS[name]).encode()
    assert not is_read_exactly(sound[0], len(head).to_bytes(8, "little") + head + bytes(16))


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**40, 200_000_000])
def test_a_header_that_lies_about_its_length_takes_no_memory(
    sound: tuple[Store, bytes], length: int
) -> None:
    assert not is_read_exactly(sound[0], length.to_bytes(8, "little") + sound[1][8:])


def test_shards_of_before_there_were_checksums_are_read(tmp_path: Path) -> None:
    store = Store(tmp_path, "things")
    store.path(KEY).parent.mkdir(parents=True)
    save_file(ARRAYS, store.path(KEY), metadata={"note": json.dumps(NOTE)})
    assert is_read_exactly(store, store.path(KEY).read_bytes())


def test_a_shard_of_something_else_is_removed(tmp_path: Path) -> None:
    store = Store(tmp_path, "things")
    store.write(KEY, ARRAYS, NOTE)
    with pytest.warns(UserWarning, match="it holds something else"), pytest.raises(KeyError):
        store.read(KEY, lambda shard: False)
    assert not store.has(KEY)


def test_a_shard_is_read_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "_YOUNG", -1)
    store, read = Store(tmp_path, "things"), []
    real = shards._sum
    store.write(KEY, ARRAYS, NOTE)
    monkeypatch.setattr(shards, "_sum", lambda array: (read.append(array.size), real(array))[1])
    store.read(KEY)
    assert sum(read) == sum(array.nbytes for array in ARRAYS.values())
    remember_sound(tmp_path)
    for _ in range(2):
        read.clear()
        store.read(KEY)
        assert not read
        shards._book.cache_clear()  # as in another process
    changed = bytearray(store.path(KEY).read_bytes())
    changed[-1] ^= 1
    at = store.path(KEY).stat()
    store.path(KEY).write_bytes(changed)
    os.utime(store.path(KEY), ns=(at.st_atime_ns, at.st_mtime_ns))
    with pytest.warns(UserWarning, match="the checksum of . is another"), pytest.raises(KeyError):
        store.read(KEY)


def test_shard_that_replaced_a_mapped_one_is_checked_anew(tmp_path: Path) -> None:
    store = Store(tmp_path, "things")
    store.write(KEY, ARRAYS, NOTE)
    assert np.array_equal(np.asarray(store.read(KEY).arrays["x"]), ARRAYS["x"])
    content = store.path(KEY).read_bytes()
    store.path(KEY).unlink()
    store.path(KEY).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(KeyError):
        store.read(KEY)


def test_a_damaged_shard_that_cannot_be_removed_is_one_sentence(
    tmp_path: Path, monkeypatch
) -> None:
    store = Store(tmp_path, "things")
    store.write(KEY, ARRAYS, NOTE)
    store.path(KEY).write_bytes(b"x")

    def refused(self, missing_ok: bool = False) -> None:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refused)
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(UserError, match="cannot be removed"),
    ):
        store.read(KEY)


def test_a_shard_that_may_not_be_read_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, "things")
    store.path(KEY).mkdir(parents=True)
    with pytest.raises(UserError, match="cannot be read"):
        store.read(KEY)
    with pytest.raises(UserError, match="cannot be written"):
        store.write(KEY, ARRAYS)
    assert store.path(KEY).is_dir()


def test_a_shard_made_again_by_another_process_is_not_removed(tmp_path: Path, monkeypatch) -> None:
    store = Store(tmp_path, "things")
    store.write(KEY, ARRAYS, NOTE)
    good = store.path(KEY).read_bytes()
    store.path(KEY).write_bytes(good[:-1])
    warn = warnings.warn

    def meanwhile(*args: Any, **kwargs: Any) -> None:
        store.write(KEY, ARRAYS, NOTE)
        warn(*args, **kwargs)

    monkeypatch.setattr(shards.warnings, "warn", meanwhile)
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(KeyError):
        store.read(KEY)
    assert store.read(KEY).note == NOTE


def test_many_readers_of_a_damaged_shard_end_with_a_sound_one(tmp_path: Path) -> None:
    store, wrong = Store(tmp_path, "things"), list[BaseException]()
    store.write(KEY, ARRAYS, NOTE)
    store.path(KEY).write_bytes(store.path(KEY).read_bytes()[:-1])

    def use() -> None:
        try:
            for _ in range(20):
                try:
                    assert store.read(KEY).note == NOTE
                except KeyError:
                    store.write(KEY, ARRAYS, NOTE)
        except BaseException as error:
            wrong.append(error)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        threads = [threading.Thread(target=use) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    assert store.read(KEY).note == NOTE
