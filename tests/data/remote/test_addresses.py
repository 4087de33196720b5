"""Addresses: an allow-list of protocols, no chains, ranges that are counted before they are written
out.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from zeroconv.cli.app import app
from zeroconv.data import open_dataset
from zeroconv.data.fitting import StorageError
from zeroconv.data.remote import addresses
from zeroconv.data.remote import copies as remote
from zeroconv.data.remote.addresses import MOST_SHARDS, check_address, expand
from zeroconv.errors import UserError


@pytest.mark.parametrize(
    "address",
    [
        *(
            "memory://set/a.tar",
            "ssh://host/a.tar",
            "sftp://host/a.tar",
            "ftp://host/a.tar",
            "smb://host/a.tar",
        ),
        *(
            "git://a.tar",
            "github://o:r@/a.tar",
            "dask://x/a.tar",
            "reference://a.tar",
            "jupyter://h/a.tar",
        ),
        *(
            "simplecache://a.tar",
            "zip://a.tar",
            "libarchive://a.tar",
            "data://a.tar",
            "local:///etc/a.tar",
        ),
        *(
            "://a.tar",
            "1://a.tar",
            "https+x://h/a.tar",
            "webhdfs://h/a.tar",
            "blockcache://x",
            "dir://x/a.tar",
        ),
    ],
)
def test_protocols_that_are_not_listed_are_refused(address: str) -> None:
    with pytest.raises(UserError, match="is none of the protocols file, http, https") as caught:
        open_dataset(address, condition="depth")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("simplecache::https://h/a.tar", "none of the protocols"),
        ("https://h/a.tar::file:///etc/passwd", "chains several"),
        ("zip://x::https://h/a.tar", "is no address|none of the protocols"),
        ("https://h/x::zip://a.tar", "chains several"),
        ("https://u:[::1]@h/a::b.tar", "chains several"),
        ("https://h/*.tar", "has a \\*"),
        ("s3://bucket/**", "has a \\*"),
        ("https:///a.tar", "names no host"),
        ("s3:///a.tar", "names no host"),
        ("https://h:99999999/a.tar", "is no address"),
        ("https://[::1/a.tar", "is no address"),
        ("https://h/a\r\nHost: b.tar", "no address may"),
        ("https://h/a\x00.tar", "no address may"),
        ("https://h/a\ud800.tar", "no address may"),
        ("https://h/{0..99999999}.tar", "stands for 100,000,000 shards"),
        ("https://h/{0..9999}/{0..9999}/{0..9999}/{0..9999}.tar", "10,000,000,000,000,000 shards"),
        ("https://h/{0..99999999999999999999999999}.tar", "braces that are no range"),
        ("https://h/{9..0}.tar", "counts down; write {0..9}"),
        ("https://h/{00..100}.tar", "same number of digits"),
        ("https://h/{0..010}.tar", "same number of digits"),
        ("https://h/{{0..1}..3}.tar", "braces that are no range"),
        ("https://h/{a,b}.tar", "braces that are no range"),
        ("https://h/{0..4..2}.tar", "braces that are no range"),
        ("https://h/{-1..3}.tar", "braces that are no range"),
        ("https://h/{0..1.tar", "braces that are no range"),
        ("https://h/}.tar", "braces that are no range"),
    ],
)
def test_an_address_is_refused_before_anything_is_asked(address: str, message: str) -> None:
    began = time.monotonic()
    with pytest.raises(StorageError, match=message):
        remote.find(address)
    assert time.monotonic() - began < 5


def test_hosts_in_brackets_are_no_chains() -> None:
    for address in (
        "http://[::1]:80/a.tar",
        "https://u:p@[fe80::1]/{0..1}.tar",
        "file:///a/b.tar",
        "S3://b/a.tar",
    ):
        assert check_address(address) in addresses.PROTOCOLS


def test_ranges_are_those_of_webdataset() -> None:
    assert expand("s3://b/{08..11}.tar") == [f"s3://b/{n}.tar" for n in ("08", "09", "10", "11")]
    assert expand("s3://b/{8..11}-{0..0}.tar") == [f"s3://b/{n}-0.tar" for n in (8, 9, 10, 11)]
    many = expand("https://h/{0..9}/train-{0000..9999}.tar")
    assert len(many) == MOST_SHARDS == len(set(many)) and many[-1] == "https://h/9/train-9999.tar"
    assert many[10_000:] == sorted(many)[10_000:]


@settings(max_examples=300, deadline=20_000)
@given(
    st.lists(
        st.sampled_from(["{", "}", "..", "0", "00", "7", "12", "999999999", ",", "a", "/", "-"]),
        max_size=12,
    )
)
def test_any_braces_are_files_or_one_sentence(pieces: list[str]) -> None:
    address, expanded = "https://h/" + "".join(pieces) + ".tar", ["none"]
    try:
        expanded = expand(address)
    except StorageError as error:
        expanded = [str(error).replace("{", "").replace("}", "")]
    assert all("\n" not in one for one in expanded)
    assert 1 <= len(expanded) <= MOST_SHARDS
    assert not any(c in one for one in expanded for c in "{}")


def test_a_pipe_at_an_address_of_a_file_is_no_shard(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    (tmp_path / "b.tar").symlink_to("/dev/zero")
    for name in ("a.tar", "b.tar", "none.tar"):
        with pytest.raises(UserError, match="there is no file:"):
            open_dataset(f"file://{tmp_path}/{name}", condition="depth")


def test_a_password_is_not_printed_by_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZEROCONV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("zeroconv.data.fitting.PAUSES", ())
    (tmp_path / "x.yaml").write_text(
        "out: run\ndata: {train: 'https://me:s3cret@127.0.0.1:1/a.tar', condition: "
        "canny}\ntraining: {steps: 1}\n"
    )
    commands = (
        ["annotate", "canny", "https://me:s3cret@127.0.0.1:1/a.tar?token=s3cret", "--out", "out"],
        ["annotate", "canny", "https://me:s3cret@127.0.0.1:1/a.tar", "--out", "out"],
        ["annotate", "canny", "https://me:s3cret@127.0.0.1:1/a::b.tar", "--out", "out"],
        ["cache", "x.yaml", "--hints-only"],
    )
    for command in commands:
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 2, done.output
        assert "s3cret" not in done.output and "***@127.0.0.1" in done.output, done.output
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "x.yaml"]
    assert not [path for path in written if b"s3cret" in path.read_bytes() or "s3cret" in str(path)]
