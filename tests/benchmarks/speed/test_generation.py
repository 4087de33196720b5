"""Generation beside others: all peers compute the same thing, parts add up, groups fit."""

from __future__ import annotations

import pytest
import torch

from benchmarks.speed import generation_peers, generation_profile, generation_turns
from benchmarks.speed.generation_peers import Ours, Theirs, configs


@pytest.fixture(scope="module")
def ours():
    return Ours("tiny", torch.float32, "torch")


def test_generation_peers_compute_the_same_step_and_decode(ours) -> None:
    """With ours' control in diffusers' module."""
    theirs = Theirs("tiny", torch.float32)
    net = ours.call.acting[0][0].net
    theirs.net.load_state_dict(net.copy.state_dict(), strict=False)
    names = {"controlnet_cond_embedding." + k: v for k, v in net.hint_encoder.state_dict().items()}
    assert not set(names) - set(theirs.net.state_dict())
    theirs.net.load_state_dict(names, strict=False)
    for ones, others in (
        (theirs.net.controlnet_down_blocks, net.zero_convs[:-1]),
        ([theirs.net.controlnet_mid_block], net.zero_convs[-1:]),
    ):
        for one, other in zip(ones, others, strict=True):
            one.load_state_dict(other.state_dict())
    with torch.inference_mode():
        assert torch.allclose(ours.step(), theirs.step(), atol=1e-4)
        assert torch.allclose(ours.decode(), (theirs.decode() / 2 + 0.5).clamp(0, 1), atol=1e-4)


def test_generation_profile_has_all_parts_and_counts_operations(ours, monkeypatch) -> None:
    monkeypatch.setattr(generation_profile, "SECONDS", 0.01)
    with torch.inference_mode():
        rows = generation_profile.rows_of(ours, torch.float32, "tiny", 1)
    for what in ("step", "decode"):
        part = {row[0].partition(": ")[2]: row for row in rows if f"a {what}:" in row[0]}
        assert sum(row[2] for name, row in part.items() if name != "all") == pytest.approx(
            100, abs=1
        )
        assert part["convolutions"][3] <= part["all"][3] and part["all"][4] > 0
    assert generation_profile.part_of("aten::native_group_norm") == "norms"
    assert generation_profile.part_of("aten::addmm") == "matrix products"


def test_generation_groups_hold_ours_and_fit_in_memory(monkeypatch) -> None:
    names = list(generation_peers.PEERS)
    monkeypatch.setattr(generation_turns, "all_memory", lambda: 24 << 30)
    groups = generation_turns.groups(names, "sd15", "float32")
    assert all(group[0] == names[0] for group in groups) and len(groups) > 1
    assert {name for group in groups for name in group} == set(names)
    monkeypatch.setattr(generation_turns, "all_memory", lambda: 1 << 40)
    assert generation_turns.groups(names, "sd15", "float32") == [names]


def test_generation_sizes_of_the_playroom_are_its_files() -> None:
    unet, vae, pixels, _ = configs("playroom")
    assert unet["in_channels"] == vae["latent_channels"] == 8 and pixels == 128
    assert not any(name.startswith("_") for name in unet)
