"""What is promised of every baseline: where it starts, what it changes, that it learns, and how it
is kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import zeroconv.baselines
from tests.helpers.tiny import inputs, sees_one_position, tiny_backbone, tiny_backbone_xl, tiny_unet
from zeroconv.backbones import UNetBackbone, load_backbone
from zeroconv.baselines import BASELINES, Baseline, load_baseline, load_net, make_baseline
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.renamed import NAMES

# the smallest of each that a tiny backbone allows
OPTIONS: dict[str, dict[str, Any]] = {
    "concat": {},
    "lora": {"rank": 4},
    "control_lora": {"rank": 4, "hint_widths": (4, 8, 8, 8)},
    "t2i_adapter": {"res_blocks": 1},
    "controlnet_xs": {"ratio": 0.5, "hint_widths": (4, 8, 8, 8)},
    "hypernetwork": {"rank": 4, "hidden": 32, "hint_widths": (4, 8, 8, 8)},
    "side": {"ratio": 0.5},
    "lllite": {"cond_dim": 16, "mlp_dim": 32},
}
KINDS = sorted(BASELINES)
STEPS = {"lllite": 30}  # of training; it acts through frozen attention alone and is slower


def small(kind: str, backbone: UNetBackbone, **more: Any) -> Baseline:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make_baseline(kind, backbone, **OPTIONS[kind], **more)


def frozen(backbone: UNetBackbone, z: Tensor, t: Tensor, text: Any) -> Tensor:
    with torch.no_grad():
        return backbone.decode(backbone.encode(z, t, text), t, text)


@pytest.mark.parametrize("make", [tiny_backbone, tiny_backbone_xl])
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_one_is_the_frozen_model_where_its_published_form_is(kind: str, make: Any) -> None:
    backbone = make()
    z, hint, t, text = inputs(backbone)
    baseline = small(kind, backbone)
    with torch.no_grad():
        output = baseline.predict(backbone, z, hint, t, text)
    same = torch.allclose(output, frozen(backbone, z, t, text), atol=1e-5)
    assert same == baseline.exact_start
    assert output.shape == z.shape


def test_only_the_adapter_does_not_start_at_the_frozen_model() -> None:
    assert [kind for kind in KINDS if not BASELINES[kind].exact_start] == ["t2i_adapter"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_what_the_hint_says_and_leaves_the_backbone_alone(kind: str) -> None:
    """The answer is the frozen output plus a pattern that only the hint tells. Another's hint must
    then be worse.
    """
    backbone = tiny_backbone()
    z, hint, t, text = inputs(backbone, n=4)
    hint = hint.round() * torch.tensor([0.0, 1.0, 0.0, 1.0])[:, None, None, None]
    before = {key: value.clone() for key, value in backbone.unet.state_dict().items()}
    wanted = frozen(backbone, z, t, text) + 0.5 * nn.functional.avg_pool2d(hint, 8).mean(
        1, keepdim=True
    )
    baseline = small(kind, backbone)
    optimizer = torch.optim.Adam(baseline.parameters(), lr=1e-2)

    def error(shown: Tensor) -> Tensor:
        return nn.functional.mse_loss(baseline.predict(backbone, z, shown, t, text), wanted)

    first = float(error(hint).detach())
    for _ in range(STEPS.get(kind, 25)):
        optimizer.zero_grad()
        error(hint).backward()
        optimizer.step()
    with torch.no_grad():
        last, swapped = float(error(hint)), float(error(hint.roll(1, 0)))
    assert last < 0.9 * first
    assert swapped > 1.3 * last  # a network that heard nothing would give the same
    deaf = [name for name, p in baseline.named_parameters() if p.grad is None or not p.grad.any()]
    assert all(sees_one_position(name) for name in deaf), deaf
    assert all(torch.equal(value, before[key]) for key, value in backbone.unet.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in backbone.unet.parameters())
    assert torch.equal(frozen(backbone, z, t, text), backbone.unet(z, t, text.hidden).sample)


@pytest.mark.parametrize("kind", KINDS)
def test_its_parameters_are_what_it_trains(kind: str) -> None:
    """The frozen model is no part of it: not of its parameters, not of its state, and not of what
    it moves.
    """
    backbone = tiny_backbone()
    theirs = {p.data_ptr() for p in backbone.unet.parameters()}
    baseline = small(kind, backbone)
    assert not theirs & {p.data_ptr() for p in baseline.parameters()}
    assert all(p.requires_grad for p in baseline.parameters())
    assert baseline.state_dict().keys() == dict(baseline.named_parameters()).keys()
    assert baseline.trained_parameters == sum(p.numel() for p in baseline.parameters())
    unet_size = sum(p.numel() for p in backbone.unet.parameters())
    assert (baseline.trained_parameters > unet_size) == (kind == "concat")


@pytest.mark.parametrize("kind", KINDS)
def test_it_comes_back_as_it_was_saved(kind: str, tmp_path: Path) -> None:
    backbone = tiny_backbone()
    baseline = small(kind, backbone, condition="canny")
    shake_(baseline)
    baseline.save(tmp_path / "baseline")
    again = load_baseline(tmp_path / "baseline", tiny_backbone())
    assert again.config == baseline.config
    assert again.config["zeroconv"]["condition"] == "canny"
    values = inputs(backbone)
    with torch.no_grad():
        expected = baseline.predict(backbone, *values)
        assert torch.equal(again.predict(backbone, *values), expected)
        assert not torch.allclose(expected, frozen(backbone, values[0], *values[2:]), atol=1e-3)
    assert isinstance(load_net(tmp_path / "baseline", backbone), BASELINES[kind])


def shake_(baseline: nn.Module, seed: int = 5, scale: float = 0.05) -> None:
    """Away from all zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in baseline.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def test_a_side_network_may_start_from_a_scale_of_zero() -> None:
    """The blend as published, and where its gradient can be at first: in α alone."""
    backbone = tiny_backbone()
    z, hint, t, text = inputs(backbone)
    baseline = small("side", backbone, start="scale")
    output = baseline.predict(backbone, z, hint, t, text)
    assert torch.equal(output, frozen(backbone, z, t, text))
    output.square().mean().backward()
    assert [
        name for name, p in baseline.named_parameters() if p.grad is not None and p.grad.any()
    ] == ["blend"]


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    small("side", backbone).save(tmp_path / "baseline")
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load_baseline(tmp_path / "baseline", backbone)
    assert torch.equal(torch.rand(2), expected)


def test_saved_in_half_it_is_half_as_large(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    small("t2i_adapter", backbone).save(tmp_path / "baseline", dtype=torch.float16)
    state = load_file(tmp_path / "baseline" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert load_baseline(tmp_path / "baseline", backbone).dtype == torch.float32


def test_one_at_a_time_or_several_around_one_backbone() -> None:
    """Adapters act inside `predict` only, so two around one backbone do not hear each other."""
    backbone = tiny_backbone()
    values = inputs(backbone)
    baselines = [small(kind, backbone) for kind in ("lora", "hypernetwork", "controlnet_xs")]
    with torch.no_grad():
        for baseline in baselines:
            shake_(baseline)
        alone = [baseline.predict(backbone, *values) for baseline in baselines]
        again = [baseline.predict(backbone, *values) for baseline in reversed(baselines)][::-1]
    assert all(torch.equal(a, b) for a, b in zip(alone, again, strict=True))
    assert not torch.allclose(alone[0], alone[1], atol=1e-3)


def test_both_forms_of_the_hint_as_channels() -> None:
    backbone = tiny_backbone()
    values = inputs(backbone)
    outputs = []
    for form in ("unshuffle", "downsample"):
        baseline = make_baseline("concat", backbone, hint_form=form)
        shake_(baseline.hint_in)  # type: ignore[arg-type]
        with torch.no_grad():
            outputs.append(baseline.predict(backbone, *values))
            moved = baseline.predict(backbone, values[0], values[1].roll(1, 3), *values[2:])
        assert not torch.allclose(outputs[-1], moved, atol=1e-4)
    assert outputs[0].shape == outputs[1].shape


def test_baseline_folders_of_older_versions_are_read(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    small("side", backbone).save(tmp_path / "baseline")
    path = tmp_path / "baseline" / "config.json"
    assert '"ZeroconvBaseline"' in path.read_text()
    path.write_text(path.read_text().replace("ZeroconvBaseline", "ZeroconvRival"))
    assert isinstance(load_net(tmp_path / "baseline", backbone), BASELINES["side"])


@pytest.mark.parametrize("old", ["RIVALS", "Rival", "is_rival", "load_rival", "make_rival"])
def test_old_names_of_baselines_work_with_a_note(old: str) -> None:
    with pytest.warns(UserWarning, match=f"{old} is an old name"):
        value = getattr(zeroconv.baselines, old)
    new = NAMES["zeroconv.baselines"][old]
    assert value is getattr(zeroconv.baselines, new)


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("controlnet_xxs", {}, "there is no baseline 'controlnet_xxs'"),
        ("lora", {"ranks": 3}, "lora has no option 'ranks'"),
        ("lora", {"rank": 0}, "at least 1"),
        ("concat", {"hint_form": "vae"}, "there is no hint form 'vae'"),
        ("controlnet_xs", {"ratio": 0.01}, "ratio 0.01 cannot be built"),
        ("hypernetwork", {"rank": 0}, "must be at least 1"),
        ("side", {"start": "one"}, "there is no start 'one'"),
        ("control_lora", {"hint_widths": (4, 8)}, "needs 4 widths"),
    ],
)
def test_baseline_that_cannot_be_built_is_refused(kind: str, options: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make_baseline(kind, tiny_backbone(), **options)


def test_the_page_says_how_many_numbers_each_trains() -> None:
    page = (Path(__file__).parents[2] / "docs" / "baselines.md").read_text(encoding="utf-8")
    backbone = load_backbone("playroom")
    for kind in KINDS:
        row = next(line for line in page.splitlines() if line.startswith(f"| `{kind}` |"))
        millions = make_baseline(kind, backbone).trained_parameters / 1e6
        assert row.endswith(
            f"| {millions:.1f} M |" if millions > 10 else f"| {millions:.2f} M |"
        ), (kind, millions)


def test_baseline_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    ControlNet.from_backbone(backbone).save(tmp_path / "control")
    with pytest.raises(UserError, match="not a baseline"):
        load_baseline(tmp_path / "control", backbone)
    assert isinstance(load_net(tmp_path / "control", backbone), ControlNet)
    small("side", backbone).save(tmp_path / "baseline")
    with pytest.raises(UserError, match="not a ControlNet"):
        ControlNet.load(tmp_path / "baseline", backbone=backbone)
    wide = tiny_backbone(unet=tiny_unet(block_out_channels=(32, 64, 64, 64)))
    with pytest.raises(UserError, match="it belongs to"):
        load_baseline(tmp_path / "baseline", wide)
    weights = tmp_path / "baseline" / "diffusion_pytorch_model.safetensors"
    save_file(
        {key: value for key, value in load_file(weights).items() if key != "network.conv_out.bias"},
        weights,
    )
    with pytest.raises(UserError, match=r"lacks network\.conv_out\.bias"):
        load_baseline(tmp_path / "baseline", backbone)


BROKEN_OPTIONS = [
    {"rank": 10**9},
    {"rank": "many"},
    {"rank": None},
    {"rank": [1]},
    {"rank": 1e300},
    [1],
    "x",
]


@pytest.mark.parametrize("options", BROKEN_OPTIONS, ids=str)
def test_a_baseline_whose_config_makes_no_sense_is_one_sentence(
    tmp_path: Path, options: object
) -> None:
    import json

    backbone = tiny_backbone()
    make_baseline("lora", backbone).save(tmp_path / "baseline")
    path = tmp_path / "baseline" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "options": options}))
    with pytest.raises(UserError) as caught:
        load_baseline(tmp_path / "baseline", backbone)
    assert "\n" not in str(caught.value)
