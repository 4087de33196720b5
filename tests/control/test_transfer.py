"""Transfer to another base: nothing to another's like, everything where the copy still is the
base's, refusals.
"""

from __future__ import annotations

import pytest
import torch

from tests.helpers.tiny import inputs, randomise_, tiny_backbone, tiny_backbone_xl, tiny_unet
from tests.helpers.tiny_folder import save_backbone, save_single_file
from zeroconv.control import ControlNet
from zeroconv.control.transfer import transfer, transfer_files
from zeroconv.errors import UserError


@pytest.fixture(scope="module")
def old():
    return tiny_backbone(seed=0)


@pytest.fixture(scope="module")
def new():
    return tiny_backbone(seed=10)


@pytest.fixture
def control(old):
    """One that has learned something: no weight is still the base's."""
    net = randomise_(ControlNet.from_backbone(old, condition="canny"))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in net.copy.parameters():
            value.add_(0.01 * torch.randn(value.shape, generator=generator))
    return net


def test_to_the_same_base_is_the_identity(control, old):
    moved = transfer(control, old, old)
    assert moved is not control
    for name, value in control.state_dict().items():
        assert torch.equal(moved.state_dict()[name], value)


def test_a_copy_that_is_still_the_bases_becomes_the_new_ones(old, new):
    control = randomise_(ControlNet.from_backbone(old))
    moved = transfer(control, old, new)
    wanted = new.copy_encoder().state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in moved.copy.state_dict().items())
    assert not torch.equal(control.copy.conv_in.weight, wanted["conv_in.weight"])
    z, hint, t, text = inputs(new)
    with torch.no_grad():
        fresh = ControlNet.from_backbone(new)
        fresh.hint_encoder.load_state_dict(control.hint_encoder.state_dict())
        fresh.zero_convs.load_state_dict(control.zero_convs.state_dict())
        ours, theirs = moved(z, hint, t, text), fresh(z, hint, t, text)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.slow
def test_difference_key_by_key(control, old, new):
    before, after = old.encoder.state_dict(), new.encoder.state_dict()
    kept = {name: value.clone() for name, value in control.state_dict().items()}
    moved = transfer(control, old, new).state_dict()
    for name, value in kept.items():
        part, _, rest = name.partition(".")
        wanted = value + (after[rest] - before[rest]) if part == "copy" else value
        torch.testing.assert_close(moved[name], wanted, rtol=0, atol=1e-6)
        assert torch.equal(control.state_dict()[name], value)  # the given one stays
    there_and_back = transfer(transfer(control, old, new), new, old).state_dict()
    for name, value in kept.items():
        torch.testing.assert_close(there_and_back[name], value, rtol=0, atol=1e-6)


def test_unchanged_is_the_same_weights_and_names_its_new_base(control, old, new):
    moved = transfer(control, old, new, "unchanged")
    assert all(
        torch.equal(moved.state_dict()[name], value) for name, value in control.state_dict().items()
    )
    new.name, name = "style", new.name
    try:
        assert transfer(control, old, new).config["zeroconv"]["base"] == "style"
    finally:
        new.name = name


def test_half_precision_stays_half(control, old, new):
    moved = transfer(control.half(), old, new)
    assert moved.dtype == torch.float16 and moved.copy.conv_in.weight.isfinite().all()


def test_other_shapes_are_one_sentence_that_names_a_tensor(control, old):
    wider = tiny_backbone(unet=tiny_unet(cross_attention_dim=48))
    for pair in ((old, wider), (wider, old)):
        with pytest.raises(
            UserError, match=r"attn2\.to_k\.weight is \[16, 32\] in its copy but \[16, 48\]"
        ) as caught:
            transfer(control, *pair)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="in its copy but"):
        transfer(control, old, tiny_backbone_xl())
    with pytest.raises(UserError, match="no way 'average'"):
        transfer(control, old, old, "average")
    with pytest.raises(UserError, match="lite connections"):
        transfer(ControlNet.from_backbone(old, connections="lite"), old, old)


def test_folders_and_single_files(control, old, new, tmp_path):
    save_backbone(tmp_path / "old", old)
    file = save_single_file(tmp_path / "new" / "model.safetensors", new)
    control.save(tmp_path / "control")
    transfer_files(tmp_path / "control", tmp_path / "old", file, tmp_path / "moved")
    moved, wanted = ControlNet.load(tmp_path / "moved", backbone=new), transfer(control, old, new)
    assert moved.config["zeroconv"]["condition"] == "canny"
    for name, value in wanted.state_dict().items():
        torch.testing.assert_close(moved.state_dict()[name], value, rtol=0, atol=1e-6)
