"""Which engine computes: names, what is not installed, and where torch does it, with a note."""

from __future__ import annotations

import warnings

import pytest
import torch

from tests.helpers.tiny import randomise_, tiny_backbone
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate
from zeroconv.generation.engines import check_engine, engine_for, openvino


@pytest.fixture(scope="module")
def base():
    return tiny_backbone()


def test_engine_names_are_checked(monkeypatch):
    assert check_engine("torch") == "torch"
    with pytest.raises(UserError, match=r"There is no engine 'turbo'; choose one of torch, open"):
        check_engine("turbo")
    with pytest.raises(TypeError, match="it is a name"):
        check_engine(1)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'zeroconv\[openvino\]'"):
        check_engine("openvino")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda base: base.unet.conv_in.register_forward_hook(lambda *_: None), "replaced"),
        (lambda base: base.to(dtype=torch.float16), "float32 or bfloat16"),
        (lambda base: setattr(base, "quantised", "int8"), "quantised"),
        (lambda base: setattr(base.unet.conv_in, "forward", base.unet.conv_in.forward), "replaced"),
    ],
)
def test_engine_leaves_what_it_cannot_compile_to_torch(change, words):
    base = tiny_backbone()
    change(base)
    with pytest.warns(UserWarning, match=f"engine openvino: .*{words}.*so torch computes it"):
        assert engine_for("openvino", base).name == "torch"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert engine_for("openvino", base, quiet=True).name == "torch"


@pytest.mark.parametrize(("edits", "adapting"), [(True, False), (False, True)])
def test_engine_leaves_editing_and_references_to_torch(base, edits, adapting):
    with pytest.warns(UserWarning, match="engine openvino: .*so torch computes it"):
        assert engine_for("openvino", base, (), edits, adapting).name == "torch"


def test_engine_leaves_merged_tokens_to_torch(base, compiled):
    with pytest.warns(UserWarning, match="tokens are merged differs.*so torch computes it"):
        assert engine_for("openvino", base, merging=True).name == "torch"


def test_engine_that_fails_to_compile_leaves_the_step_to_torch(base, compiled, monkeypatch):
    """A note with the reason, and torch's own picture."""
    net = randomise_(ControlNet.from_backbone(base, condition="canny"))
    controls = [Control(net, torch.rand(3, 64, 64))]
    options = {"steps": 2, "output": "tensor", "schedule": "trailing"}
    exact = generate(base, "a", controls, **options)[0]

    def fails(*_):
        raise RuntimeError("no such operation\nand more")

    monkeypatch.setattr(openvino, "compile_module", fails)
    with pytest.warns(UserWarning, match=r"cannot be compiled \(no such operation\), so torch"):
        left = generate(base, "a", controls, engine="openvino", **options)[0]
    monkeypatch.setattr(openvino, "compile_module", lambda *_: pytest.fail("it is tried again"))
    with pytest.warns(UserWarning, match=r"cannot be compiled \(no such operation\), so torch"):
        generate(base, "a", controls, engine="openvino", **options)
    assert torch.allclose(left, exact, atol=1e-5)


def test_engine_whose_graph_differs_from_torch_is_not_used(base, compiled, monkeypatch):
    options = {"steps": 2, "output": "tensor", "schedule": "trailing"}
    exact = generate(base, "a", **options)[0]
    right = openvino.Ready.run

    def wrong(self, changing):
        return {name: value + 0.1 for name, value in right(self, changing).items()}

    monkeypatch.setattr(openvino.Ready, "run", wrong)
    with pytest.warns(UserWarning, match="its output differs from torch's by 0"):
        left = generate(base, "a", engine="openvino", **options)[0]
    assert torch.allclose(left, exact, atol=1e-5)
