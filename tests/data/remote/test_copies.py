"""Shards at an address: found, indexed, copied once, few kept, and what a store's failure does."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from tests.helpers.tiny import tiny_backbone
from zeroconv.data import open_dataset
from zeroconv.data.annotating.packing import pack
from zeroconv.data.buckets import Buckets
from zeroconv.data.cache.fill import CacheSettings, cache_examples
from zeroconv.data.fitting import BrokenExample
from zeroconv.data.remote import addresses
from zeroconv.data.remote import copies as remote
from zeroconv.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZEROCONV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(addresses, "PROTOCOLS", (*addresses.PROTOCOLS, "memory"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine pictures with hints, an imagefolder, and as shards of three in parquet/ and tar/."""
    root, rng, lines = tmp_path_factory.mktemp("set"), np.random.default_rng(1), []
    for i in range(9):
        Image.fromarray(rng.integers(0, 256, (160, 160, 3), np.uint8)).save(root / f"{i}.png")
        Image.new("L", (160, 160), 20 * i).save(root / f"{i}-hint.png")
        lines.append(
            {"file_name": f"{i}.png", "text": f"picture {i}", "conditioning_image": f"{i}-hint.png"}
        )
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for kind in ("parquet", "tar"):
        for number, path in enumerate(pack(root, root / kind, kind, shard=3)):
            path.rename(root / kind / f"train-{number:05d}.{kind}")
    return root


@pytest.fixture
def store(folder: Path):
    """The shards in fsspec's store in memory, and how often each was read whole."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    for kind in ("parquet", "tar"):
        for path in (folder / kind).iterdir():
            memory.pipe_file(f"/set/{kind}/{path.name}", path.read_bytes())
    yield memory
    memory.store.clear()


@pytest.fixture
def fetched(store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    get = type(store).get_file

    def counted(self, path: str, *args, **kwargs):
        names.append(Path(path).name)
        return get(self, path, *args, **kwargs)

    monkeypatch.setattr(type(store), "get_file", counted)
    return names


@contextlib.contextmanager
def served(folder: Path, ranges: bool):
    """The address of a folder over http, and what was asked for: (method, path, Range)."""
    asked: list[tuple[str, str, str | None]] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args) -> None:
            pass

        def do_HEAD(self) -> None:
            asked.append(("HEAD", self.path, None))
            super().do_HEAD()

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            asked.append(("GET", self.path, wanted))
            if not (ranges and wanted):
                return super().do_GET()
            content = Path(self.translate_path(self.path)).read_bytes()
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            begin = int(first) if first else len(content) - int(last)
            end = min(int(last), len(content) - 1) if first and last else len(content) - 1
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end}/{len(content)}")
            self.send_header("Content-Length", str(end - begin + 1))
            self.end_headers()
            self.wfile.write(content[begin : end + 1])

        def end_headers(self) -> None:
            if ranges:
                self.send_header("Accept-Ranges", "bytes")
            super().end_headers()

    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def same(spec: str, folder: Path, count: int = 9) -> None:
    got, wanted = open_dataset(spec, condition="depth"), open_dataset(folder, condition="depth")
    assert len(got) == count
    for i in range(count):
        assert got[i].text == wanted[i].text
        assert np.array_equal(np.asarray(got[i].image), np.asarray(wanted[i].image))
        assert np.array_equal(np.asarray(got[i].hint), np.asarray(wanted[i].hint))


@pytest.mark.parametrize("kind", ["parquet", "tar"])
@pytest.mark.parametrize(
    "address", ["memory://set/KIND", "memory://set/KIND/train-{00000..00002}.KIND"]
)
def test_remote_shards_hold_what_lies_in_them(
    folder: Path, fetched: list[str], kind: str, address: str
) -> None:
    same(address.replace("KIND", kind), folder)
    assert sorted(fetched) == [f"train-0000{i}.{kind}" for i in range(3)]  # each once


@pytest.mark.parametrize("kind", ["parquet", "tar"])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_web_server_will_do(folder: Path, kind: str, ranges: bool) -> None:
    pytest.importorskip("aiohttp")
    with served(folder, ranges) as (address, asked):
        same(f"{address}/{kind}/train-{{00000..00002}}.{kind}?repeat=2", folder)
        unranged = [path for method, path, wanted in asked if method == "GET" and wanted is None]
        assert len([path for path in unranged if path.endswith(kind)]) == 3
        same(f"{address}/{kind}/", folder)  # its page of links


def test_the_end_of_a_parquet_file_is_read_without_the_rest(
    fetched: list[str], cache: Path
) -> None:
    assert len(open_dataset("memory://set/parquet", condition="depth")) == 9
    assert fetched == [] and not (cache / "copies").exists()


def test_a_limit_leaves_later_shards_alone(folder: Path, fetched: list[str]) -> None:
    same("memory://set/tar?limit=4", folder, count=4)
    assert sorted(set(fetched)) == ["train-00000.tar", "train-00001.tar"]


def test_a_later_start_asks_for_no_contents(folder: Path, fetched: list[str], cache: Path) -> None:
    spec = "memory://set/tar"
    open_dataset(spec, condition="depth")
    for copy in (cache / "copies").iterdir():
        copy.unlink()
    fetched.clear()
    dataset = open_dataset(spec, condition="depth")
    assert len(dataset) == 9 and fetched == []
    assert dataset[8].caption == "picture 8" and fetched == ["train-00002.tar"]


def test_old_copies_make_room(
    folder: Path, fetched: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = max(path.stat().st_size for path in (folder / "tar").iterdir())
    monkeypatch.setenv("ZEROCONV_COPIES_GB", str(1.5 * size / 1e9))
    monkeypatch.setattr(remote, "IN_USE", -1.0)
    monkeypatch.setattr(
        "zeroconv.data.sources.shard_sets.in_parallel", lambda look, of: [look(one) for one in of]
    )
    same("memory://set/tar", folder)
    assert len([path for path in (cache / "copies").iterdir() if path.suffix == ".tar"]) == 1
    monkeypatch.setattr(remote, "IN_USE", 60.0)  # what others read now stays, whatever the bound
    same("memory://set/tar", folder)
    assert len([path for path in (cache / "copies").iterdir() if path.suffix == ".tar"]) == 3


def test_a_run_reads_them_and_notices_a_change(folder: Path, store, tmp_path: Path) -> None:
    backbone, settings = tiny_backbone(), CacheSettings(tmp_path / "moments", workers=1)

    def cached():
        return cache_examples(
            open_dataset("memory://set/tar", condition="depth", size=32), backbone, settings
        )

    here = cache_examples(open_dataset(folder, condition="depth", size=32), backbone, settings)
    there = cached()
    assert np.allclose(there.moments[range(9)], here.moments[range(9)], atol=1e-5)
    store.pipe_file("/set/tar/train-00001.tar", store.cat_file("/set/tar/train-00000.tar"))
    assert cached().prompts(range(9)) == [f"picture {i}" for i in (0, 1, 2, 0, 1, 2, 6, 7, 8)]


def test_a_lost_connection_is_tried_again_and_sets_no_picture_aside(
    folder: Path, store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zeroconv.data.fitting.PAUSES", (0.0, 0.0))
    dataset = open_dataset("memory://set/parquet", condition="depth")
    tries: list[str] = []
    get = type(store).get_file

    def lost(self, path: str, target: str, *args, **kwargs):
        tries.append(path)
        if len(tries) % 3:
            Path(target).write_bytes(b"half of it")
            if len(tries) == 1:
                raise TimeoutError
            return None
        return get(self, path, target, *args, **kwargs)

    monkeypatch.setattr(type(store), "get_file", lost)
    assert dataset[0].caption == "picture 0" and len(tries) == 3

    for failure, message in (
        (RuntimeError("the store is on fire"), "on fire.*same command"),
        (OSError(errno.ENOSPC, "No space left on device"), "there is no room for a copy"),
        (PermissionError("the login has ended"), "may not be read .*log in"),
        (FileNotFoundError("/set"), "there is no memory:"),
    ):

        def dead(self, *args, failure=failure, **kwargs):
            raise failure

        monkeypatch.setattr(type(store), "get_file", dead)
        with pytest.raises(UserError, match=message) as caught:
            dataset[8]
        assert not isinstance(caught.value, BrokenExample)
    monkeypatch.setenv("ZEROCONV_COPIES_GB", "much")
    with pytest.raises(UserError, match="how many gigabytes"):
        dataset[8]


def test_what_cannot_be_read_is_one_sentence(
    store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.pipe_file("/bad/a.tar", b"no tar")
    store.pipe_file("/bad/a.parquet", b"no parquet")
    for spec, message in {
        "memory://set/tar/train-{00000..00003}.tar": "there is no memory://set/tar/train-00003.tar",
        "memory://nothing": "holds no parquet and no tar shards",
        "memory://set": "holds no parquet",  # kinds of shards, not splits
        "memory://bad/a.tar": "a.tar cannot be read as tar",
        "memory://bad/a.parquet": "a.parquet cannot be read as parquet",
        "nowhere://set/a.tar": "cannot be read: nowhere is none of the protocols",
        "memory://set/parquet?split=test": "no split 'test'; it has train",
        "memory://set/tar?signed=yes": "unknown option 'signed'",
        "memory://set/tar/train-00000.tar?split=test": "no split 'test'; it has train",
        "memory://set/tar?hints=elsewhere": "names hints=",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            open_dataset(spec, condition="depth")
        assert len(str(caught.value).splitlines()) == 1

    def refused(*args, **kwargs):
        raise PermissionError("403")

    monkeypatch.setattr(type(store), "info", refused)
    with pytest.raises(UserError, match=r"may not be read \(403\)"):
        open_dataset("memory://set/tar/train-00000.tar", condition="depth")


def test_shapes_are_remembered_too(folder: Path, fetched: list[str], cache: Path) -> None:
    def shapes() -> list:
        dataset = open_dataset(
            "memory://set/tar", condition="depth", size=32, buckets=Buckets(32, 8, 16, 64)
        )
        return [dataset.frame(i) for i in range(9)]

    before = shapes()
    assert set(before) == {(32, 32)}
    for copy in (cache / "copies").iterdir():
        copy.unlink()
    fetched.clear()
    assert shapes() == before and fetched == []


def test_files_of_one_time_and_length_are_two(store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        store.pipe_file(f"/two/{name}.tar", name.encode() * 10240)
    # web servers make an ETag of time and length
    monkeypatch.setattr(
        type(store), "info", lambda *args, **kwargs: {"size": 10240, "ETag": "one", "type": "file"}
    )
    one, two = remote.find("memory://two/a.tar"), remote.find("memory://two/b.tar")
    assert isinstance(one, list) and isinstance(two, list) and one[0].mark != two[0].mark
    assert remote.local(one[0]).read_bytes() != remote.local(two[0]).read_bytes()


def test_cache_of_copies_that_is_a_file_or_may_not_be_written_is_refused(
    store, cache: Path
) -> None:
    shards = remote.find("memory://set/tar/train-00000.tar")
    assert isinstance(shards, list)
    cache.write_text("a file")
    with pytest.raises(
        UserError, match=r"the cache .* cannot be written \(.*\); name another place"
    ):
        remote.local(shards[0])


def test_a_copy_that_was_cut_is_made_again(store, folder: Path, fetched: list[str]) -> None:
    shards = remote.find("memory://set/tar/train-00000.tar")
    assert isinstance(shards, list)
    path = remote.local(shards[0])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="the copy .* has .* bytes; it is made again"):
        remote.local(shards[0])
    assert (
        path.read_bytes() == (folder / "tar" / "train-00000.tar").read_bytes() and len(fetched) == 2
    )


def test_copies_in_a_cache_that_may_not_be_written_are_read(
    store, cache: Path, monkeypatch
) -> None:
    shards = remote.find("memory://set/tar/train-00000.tar")
    assert isinstance(shards, list)
    path = remote.local(shards[0])

    def refused(*args, **kwargs):
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", refused)
    monkeypatch.setattr(Path, "mkdir", refused)
    assert remote.local(shards[0]) == path


def test_a_table_of_contents_over_its_bound_is_not_read(
    store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.pipe_file(
        "/lies/a.parquet", b"PAR1" + b"x" * 100 + (2**31 - 1).to_bytes(4, "little") + b"PAR1"
    )
    with pytest.raises(UserError, match="its table has 2,147,483,647 bytes"):
        open_dataset("memory://lies/a.parquet", condition="depth")


def test_a_shard_over_its_bound_makes_no_room(
    store, fetched: list[str], cache: Path, monkeypatch
) -> None:
    monkeypatch.setenv("ZEROCONV_SHARD_GB", "0.00001")
    with pytest.raises(
        UserError, match=r"is not copied: it has [\d,]+ bytes, and a shard may have 10,000"
    ):
        open_dataset("memory://set/tar/train-00000.tar", condition="depth")
    monkeypatch.setenv("ZEROCONV_SHARD_GB", "nan")
    with pytest.raises(UserError, match="ZEROCONV_SHARD_GB is 'nan'; give how many gigabytes"):
        open_dataset("memory://set/tar/train-00000.tar", condition="depth")
    assert fetched == []


def test_readers_at_once_share_a_copy(store, folder: Path, fetched: list[str]) -> None:
    shards = open_dataset("memory://set/parquet", condition="depth").sources[0].shards  # type: ignore[attr-defined]
    threads = [threading.Thread(target=remote.local, args=(shards[0],)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fetched == ["train-00000.parquet"]
    assert (
        os.path.getsize(remote.local(shards[0]))
        == (folder / "parquet" / "train-00000.parquet").stat().st_size
    )
