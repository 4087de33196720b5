"""The protocol of nets: each kind keeps it, and nobody outside the loader asks for a class."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import zeroconv
from tests.helpers.tiny import inputs, randomise_, tiny_backbone
from tests.helpers.tiny_sd3 import tiny_control, tiny_sd3
from zeroconv.backbones import Connection
from zeroconv.baselines import BASELINES, make_baseline
from zeroconv.control import ControlNet, is_net
from zeroconv.control.compose import add_up, masks_at, scaled
from zeroconv.control.net import Net
from zeroconv.control.sd3 import SD3ControlNet
from zeroconv.training.model import to_train_


@pytest.fixture(scope="module")
def nets() -> dict[str, Any]:
    backbone = tiny_backbone()
    control = randomise_(ControlNet.from_backbone(backbone, condition="canny"))
    side = make_baseline("side", backbone, condition="canny")
    return {"controlnet": control, "sd3": SD3ControlNet(tiny_control(1), tiny_sd3()), "side": side}


def members(protocol: type) -> list[str]:
    names = {*vars(protocol), *protocol.__annotations__}
    return [name for name in names if not name.startswith("_")]


@pytest.mark.parametrize("kind", ["controlnet", "sd3", "side"])
def test_net_protocol_is_kept_by(nets: dict[str, Any], kind: str) -> None:
    net = nets[kind]
    assert is_net(net) and not is_net(torch.nn.Linear(1, 1)) and not is_net("canny")
    missing = [name for name in members(Net) if not hasattr(net, name)]
    assert not missing
    assert net.has_residuals == (kind != "side") and net.networks()[0] is net
    assert net.condition == (None if kind == "sd3" else "canny")


def test_net_classes_of_baselines_have_no_residuals() -> None:
    assert not any(kind.has_residuals.fget(None) for kind in BASELINES.values())  # type: ignore[attr-defined]


@torch.no_grad()
def test_net_predict_of_a_controlnet_is_the_sum_of_the_paper(nets: dict[str, Any]) -> None:
    backbone = tiny_backbone()
    z, hint, t, text = inputs(backbone)
    residuals = nets["controlnet"](z, hint, t, text)
    skips = [s + r for s, r in zip(backbone.encode(z, t, text), residuals, strict=True)]
    expected = backbone.decode(skips, t, text)
    assert torch.equal(nets["controlnet"].predict(backbone, z, hint, t, text), expected)
    assert torch.equal(backbone.predict(z, t, text, backbone.spread(residuals)), expected)
    plain = backbone.decode(backbone.encode(z, t, text), t, text)
    assert torch.equal(backbone.predict(z, t, text), plain)
    assert torch.equal(backbone.predict(z, t, text, [None] * len(residuals)), plain)


@pytest.mark.parametrize("frozen_copy", [False, True])
def test_net_trains_what_it_names(nets: dict[str, Any], frozen_copy: bool) -> None:
    for net in nets.values():
        to_train_(net, frozen_copy)
        named = {id(p) for p in net.trainable(frozen_copy)}
        assert named and {id(p) for p in net.parameters() if p.requires_grad} == named
    fewer = sum(p.numel() for p in nets["controlnet"].trainable(frozen_copy))
    copy = sum(p.numel() for p in nets["controlnet"].copy.parameters())
    every = sum(p.numel() for p in nets["controlnet"].parameters())
    assert fewer == (every - copy if frozen_copy else every)


def test_net_classes_are_asked_for_by_the_loader_alone() -> None:
    asked = re.compile(r"isinstance\([^)]*\b(Baseline|ControlNet|SD3ControlNet)\b")
    package = Path(zeroconv.__file__).parent
    files = [path for path in package.rglob("*.py") if asked.search(path.read_text("utf-8"))]
    assert [str(path.relative_to(package)) for path in files] == []


def test_noise_schedules_are_known_to_the_process_alone() -> None:
    """Beside it: the check of a scheduler's config, and the construction of schedulers."""
    known = re.compile(r"alphas_cumprod|\bbetas\b(?! *[=:\"])")
    package = Path(zeroconv.__file__).parent
    files = {
        path.relative_to(package).as_posix()
        for part in ("training", "generation", "evaluation", "control", "baselines", "backbones")
        for path in (package / part).rglob("*.py")
        if known.search(path.read_text("utf-8"))
    }
    built = {"backbones/loading/folder.py", "generation/samplers/schedules.py"}
    assert files - built == {"backbones/process/diffusion.py"}


def test_compose_tokens_are_masked_and_scaled_like_maps() -> None:
    """A map (N, C, h, w) and the same numbers as tokens (N, h · w, C) stay the same numbers."""
    mask = torch.zeros(1, 1, 32, 48)
    mask[..., :16] = 1
    places = [Connection("a", 5, 2), Connection("a", 5, 2, "tokens")]
    as_map, as_tokens = masks_at(mask, places, (4, 6))
    assert as_map.shape == (1, 1, 2, 3) and as_tokens.shape == (1, 6, 1)
    r = torch.randn(2, 5, 2, 3)
    tokens = r.flatten(2).transpose(1, 2)
    pictures = torch.tensor([0.5, 2.0])
    (first,) = scaled([r], [3.0], 0.5, pictures, [as_map])
    (second,) = scaled([tokens], [3.0], 0.5, pictures, [as_tokens])
    assert torch.equal(first.flatten(2).transpose(1, 2), second)
    assert torch.allclose(first[1, :, :, 0], 3.0 * r[1, :, :, 0]) and not first[..., 1:].any()


def test_compose_adds_up_what_there_is() -> None:
    one, two = torch.ones(2), torch.full((2,), 2.0)
    assert add_up(None, None) is None
    assert add_up(None, [one, None]) == [one, None]
    total = add_up([one, None, None], [two, two, None])
    assert total is not None and total[1] is two and total[2] is None
    assert torch.equal(total[0], torch.full((2,), 3.0))  # type: ignore[arg-type]
