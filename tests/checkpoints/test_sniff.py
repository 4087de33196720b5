"""A file that is no weights is named for what it is, whatever its suffix says and whoever
reads it.
"""

from __future__ import annotations

import gzip
import io
import zipfile

import pytest
import torch
from PIL import Image
from safetensors.torch import save

from zeroconv.backbones import load_backbone
from zeroconv.checkpoints import convert, identify, read_state_dict
from zeroconv.checkpoints.lora import read_lora
from zeroconv.control import ControlNet
from zeroconv.errors import UserError

SUFFIXES = (".safetensors", ".ckpt", ".pth", ".bin", ".pt")


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, kind)
    return buffer.getvalue()


FOREIGN = {
    "empty file": b"",
    "HTML page": b"  <!DOCTYPE html>\n<html><head><title>404</title>",
    "an HTML page": b"\xef\xbb\xbf<html>",
    "XML page": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
    "git-annex pointer": b"/annex/objects/SHA256E-s1--00.safetensors\n",
    "GGUF": b"GGUF\x03\0\0\0" + bytes(64),
    "PNG picture": picture("PNG"),
    "JPEG picture": picture("JPEG"),
    "WebP picture": picture("WEBP"),
    "gzip archive": gzip.compress(b"x" * 100),
    "zip archive of 1 other files": zipped(**{"model.safetensors": b"12"}),
    "PDF": b"%PDF-1.7\n",
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(20),
    "JSON text": b'{"error": "Invalid username or password."}',
    "text file": b"Entry not found",
    "NumPy": b"\x93NUMPY\x01\0" + bytes(20),
    "file of zeros": bytes(4096),
}
READERS = {
    "state dict": read_state_dict,
    "control": ControlNet.load,
    "base": load_backbone,
    "LoRA": read_lora,
    "info": identify,
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_file_is_named_for_what_it_is(tmp_path, what, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(FOREIGN[what])
    for reader in READERS.values():
        with pytest.raises(UserError, match=what) as caught:
            reader(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
        assert "incomplete" not in str(caught.value) and " code" not in str(caught.value)
    with pytest.raises(UserError, match=what):
        convert(path, tmp_path / "out", "diffusers")


@pytest.mark.parametrize("suffix", [".gguf", ".html", ".zip", ".png", ".txt", ""])
@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_file_of_another_suffix_is_named_too(tmp_path, what, suffix):
    if "zip archive" in what:
        what = "zip"
    path = tmp_path / f"model{suffix}"
    path.write_bytes(FOREIGN.get(what, b"PK\x03\x04"))
    for reader in READERS.values():
        with pytest.raises(
            UserError, match="zeroconv reads|is no model" if what == "zip" else what
        ):
            reader(path)


@pytest.mark.parametrize("content", ["empty file", "HTML page", "Git LFS pointer", "XML page"])
def test_a_config_that_is_another_file_is_named(tmp_path, content):
    (tmp_path / "config.json").write_bytes(FOREIGN[content])
    for reader in (ControlNet.load, load_backbone, identify):
        with pytest.raises(UserError, match=content):
            reader(tmp_path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_content_decides_how_a_weights_file_is_read(tmp_path, suffix):
    state = {"a": torch.arange(6.0)}
    (tmp_path / f"s{suffix}").write_bytes(save(state))
    torch.save(state, tmp_path / f"p{suffix}")
    for name in "sp":
        assert torch.equal(read_state_dict(tmp_path / f"{name}{suffix}")["a"], state["a"])


def test_a_special_file_is_refused_without_reading_it(tmp_path):
    import os

    os.mkfifo(tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="there is no weights file"):
        read_state_dict(tmp_path / "x.safetensors")
    (tmp_path / "folder.ckpt").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        read_state_dict(tmp_path / "folder.ckpt")


def rewrite(path, change) -> None:
    """Write a torch archive anew, its entries changed by `change(name, content)`."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(name, change(name, content))


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.ckpt"
    torch.save({"a": torch.zeros(64 * 2**20, dtype=torch.uint8)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    assert path.stat().st_size < 2**20
    with pytest.raises(UserError, match="unpacks to 67,10"):
        read_state_dict(path)


def test_an_archive_that_lies_about_a_tensor_is_one_sentence(tmp_path):
    path = tmp_path / "lie.pth"
    torch.save({"a": torch.ones(4)}, path)
    rewrite(
        path,
        lambda name, content: content.replace(b"K\x04t", b"J\0\0\0\x10t").replace(
            b"K\x04\x85", b"J\0\0\0\x10\x85"
        ),
    )
    with pytest.raises(UserError, match="damaged or no checkpoint"):
        read_state_dict(path)


def test_torchscript_is_refused_as_a_program(tmp_path):
    class Net(torch.nn.Module):
        def forward(self, x):
            return x

    torch.jit.script(Net()).save(str(tmp_path / "net.pt"))
    with pytest.raises(UserError, match="TorchScript program"):
        read_state_dict(tmp_path / "net.pt")


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9, 0.999])
def test_an_archive_cut_short_is_damaged(tmp_path, cut):
    path = tmp_path / "x.ckpt"
    torch.save({"a": torch.rand(1000)}, path)
    path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    with pytest.raises(UserError, match="is damaged"):
        read_state_dict(path)
