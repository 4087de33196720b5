"""OpenVINO itself: its pictures are torch's, and a second process compiles nothing."""

from __future__ import annotations

import warnings

import pytest
import torch

from tests.helpers.tiny import tiny_backbone, tiny_unet
from zeroconv.generation import Control, generate
from zeroconv.generation.engines import openvino, store

pytest.importorskip("openvino")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ZEROCONV_CACHE", str(tmp_path))
    monkeypatch.setattr(openvino, "_GRAPHS", openvino.OrderedDict())
    return tmp_path / "engines"


def made(base, controls, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.filterwarnings("error", "engine ")
        return torch.stack(generate(base, "a red ball", controls, output="tensor", **options))


def as_another_process(monkeypatch):
    """What is on the disk is all there is, and nothing can be compiled."""
    monkeypatch.setattr(openvino, "_GRAPHS", openvino.OrderedDict())
    monkeypatch.setattr(openvino, "compile_module", lambda *_: pytest.fail("it was compiled"))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"fast": "x3"}, {"guidance": "both", "steps": 4}])
def test_openvino_makes_torchs_pictures_of_the_playroom(cache, monkeypatch, options):
    """Float32, with a control: 1e-3 a pixel at most; measured 2e-6."""
    import zeroconv

    base = zeroconv.load_backbone("playroom")
    net = zeroconv.ControlNet.load("playroom-canny", backbone=base)
    hint = torch.zeros(3, 128, 128)
    hint[:, 40:44, 30:100] = hint[:, 40:100, 30:34] = 1
    options = {"steps": 8, "seed": 3, **options}
    exact = made(base, [Control(net, hint)], **options)
    first = made(base, [Control(net, hint)], engine="openvino", **options)
    assert float((first - exact).abs().max()) <= 1e-3
    as_another_process(monkeypatch)
    assert torch.equal(made(base, [Control(net, hint)], engine="openvino", **options), first)


@pytest.mark.slow
def test_openvino_makes_a_damaged_graph_again(cache, monkeypatch):
    unet = tiny_unet(
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
    )
    base = tiny_backbone(unet=unet)
    first = made(base, [], engine="openvino", steps=2)
    for path in cache.glob("*.graph"):
        path.write_bytes(path.read_bytes()[:-10])
    monkeypatch.setattr(openvino, "_GRAPHS", openvino.OrderedDict())
    with pytest.warns(UserWarning, match="is damaged; it is made again"):
        again = generate(base, "a red ball", engine="openvino", steps=2, output="tensor")
    assert torch.allclose(torch.stack(again), first, atol=1e-5)
    monkeypatch.setattr(openvino, "_GRAPHS", openvino.OrderedDict())
    assert all(store.read(path.stem) for path in cache.glob("*.graph"))


@pytest.mark.slow
def test_openvino_computes_in_bfloat16(cache, monkeypatch):
    """With weights in the layout of a loaded base, whose channels come last."""
    base = tiny_backbone().to(dtype=torch.bfloat16)
    for module in (base.unet, base.vae):
        torch.nn.Module.to(module, memory_format=torch.channels_last)
    exact, graphs = (made(base, [], engine=name, steps=2) for name in ("torch", "openvino"))
    assert float((exact - graphs).abs().mean()) < 0.02
    as_another_process(monkeypatch)
    assert torch.equal(made(base, [], engine="openvino", steps=2), graphs)
