"""Work of earlier steps used again: what is computed when, and that the rest is as it was."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch

from tests.helpers.tiny import inputs, randomise_, tiny_backbone, tiny_unet
from zeroconv.control import ControlNet
from zeroconv.generation import Control, generate
from zeroconv.generation.sampling import Guide
from zeroconv.generation.saving.deep import decode_keeping, decode_last, encode_first
from zeroconv.generation.saving.predicting import _residuals
from zeroconv.generation.saving.settings import Fast
from zeroconv.generation.saving.state import Saving, saving_for
from zeroconv.layers.merging import Merging

EVERYTHING = {"deep": 3, "layers": 2, "branch": 3, "difference": 2, "guidance_end": 0.5}


@pytest.fixture(scope="module")
def base():
    """Two levels of two layers, both with attention."""
    unet = tiny_unet(
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    return tiny_backbone(unet=unet)


@pytest.fixture(scope="module")
def net(base):
    return randomise_(ControlNet.from_backbone(base, condition="canny"))


def hint(seed: int = 0) -> torch.Tensor:
    return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(seed))


def made(base, controls, prompts="a", **options):
    options = {"steps": 4, "cfg": 3.0, "output": "tensor", **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of few steps
        warnings.filterwarnings("error", "fast")
        return torch.stack(generate(base, prompts, controls, **options))


@pytest.mark.parametrize("guidance", ["both", "cond"])
@pytest.mark.parametrize("options", [{}, {"cfg": 1.0}, {"negative": "a"}])
def test_fast_of_steps_that_are_all_exact_changes_nothing(base, net, guidance, options):
    controls = [Control(net, hint()), Control(net, hint(1), scale=0.5, end=0.5, curve="linear_up")]
    fast = {**EVERYTHING, "guidance_end": 1.0, "exact": 1.0}
    options = {"guidance": guidance, **options}
    exact = made(base, controls, **options)
    assert torch.allclose(made(base, controls, fast=fast, **options), exact, atol=1e-5)


@pytest.mark.parametrize("guidance", ["both", "cond"])
@pytest.mark.parametrize("fast", [EVERYTHING, "x3", {**EVERYTHING, "merge": 0.5}])
def test_fast_pictures_do_not_depend_on_their_batch(base, net, guidance, fast):
    controls = [Control(net, hint(), start=0.25)]
    options = {"guidance": guidance, "fast": fast, "seed": 3}
    together = made(base, controls, ["a", "b"], **options)
    alone = made(base, controls, ["a", "b"], batch_size=1, **options)
    assert torch.allclose(together, alone, atol=1e-4)
    assert not torch.allclose(together, made(base, controls, ["a", "b"], guidance=guidance, seed=3))


@pytest.mark.parametrize(
    ("fast", "middles", "branches", "rows"),
    [
        ({"deep": 1}, 6, 6, 12),
        ({"deep": 2}, 3, 3, 12),
        ({"deep": 3}, 2, 2, 12),
        ({"branch": 2}, 6, 3, 12),
        ({"deep": 2, "branch": 2}, 3, 2, 12),
        ({"difference": 2}, 6, 6, 9),
        ({"deep": 3, "difference": 2}, 2, 2, 8),
        ({"guidance_end": 0.5}, 6, 6, 9),
        ({"deep": 6, "exact": 0.5}, 3, 3, 12),
    ],
)
def test_fast_computes_no_more_than_it_says(base, net, fast, middles, branches, rows):
    """Calls of the middle block and of the control, and rows of the output, in six steps."""
    counts = {"middle": 0, "branch": 0, "rows": 0}

    def count(name, module, more=lambda args: 1):
        def add(module, args, output):
            counts[name] += more(args)

        return module.register_forward_hook(add)

    hooks = [
        count("middle", base.unet.mid_block),
        count("branch", net.copy.mid_block),
        count("rows", base.unet.conv_out, lambda args: len(args[0])),
    ]
    try:
        made(base, [Control(net, hint())], steps=6, guidance="both", fast=fast, scheduler="ddim")
    finally:
        for hook in hooks:
            hook.remove()
    assert counts == {"middle": middles, "branch": branches, "rows": rows}


def test_deep_features_are_computed_when_latents_have_changed():
    z, saving = torch.ones(1, 4, 2, 2), Saving(Fast(change=0.2), 1)
    fresh = []
    for step, size in enumerate((1.0, 1.1, 1.19, 1.25, 1.3, 1.0)):
        saving.begin(step, 6, z * size, [])
        saving.deep = z
        fresh.append(saving.fresh_deep)
    assert fresh == [True, False, False, True, False, False]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_deep_features_of_the_same_step_give_the_same_output(base, layers):
    z, _, t, text = inputs(base)
    with torch.no_grad():
        skips = [s + 0.3 for s in base.encode(z, t, text)]
        output, deep = decode_keeping(base, skips, t, text, layers)
        assert torch.equal(output, base.decode(skips, t, text))
        first = [s + 0.3 for s in encode_first(base, z, t, text, layers)]
        assert all(torch.equal(a, b) for a, b in zip(first, skips, strict=False))
        again = decode_last(base, deep, first, t, text)
    assert len(first) == layers and torch.allclose(again, output, atol=1e-6)


@pytest.mark.parametrize("more", [{}, {"deep": 2, "branch": 2, "difference": 2}])
def test_merged_tokens_are_those_of_the_steps_that_are_not_exact(base, net, more):
    """In six attentions of the base and two of the control; beside other settings, which without
    them give the same bits.
    """
    controls, options = [Control(net, hint())], {"seed": 3, "guidance": "both"}
    exact = made(base, controls, fast=more, **options)
    assert torch.equal(made(base, controls, fast={**more, "merge": 0.0}, **options), exact)
    all_exact = {"merge": 0.5, "exact": 1.0}
    whole = made(base, controls, **options)
    assert torch.allclose(made(base, controls, fast=all_exact, **options), whole, atol=1e-5)
    merged = made(base, controls, fast={**more, "merge": 0.5}, **options)
    again = made(base, controls, fast={**more, "merge": 0.5}, **options)
    assert torch.equal(merged, again) and not torch.allclose(merged, exact, atol=1e-4)
    forwards = [m for part in (base.unet, net) for m in part.modules() if "forward" in vars(m)]
    assert not forwards


def test_merged_tokens_are_in_the_base_and_in_every_control_once(base, net, monkeypatch):
    calls: dict[int, int] = {}
    attend = Merging._attend

    def count(self, number, *args, **more):
        calls[number] = calls.get(number, 0) + 1
        return attend(self, number, *args, **more)

    monkeypatch.setattr(Merging, "_attend", count)
    other = randomise_(ControlNet.from_backbone(base))
    controls = [Control(net, hint()), Control(other, hint(1)), Control(net, hint(2))]
    made(base, controls, fast="merge=0.25", steps=1, scheduler="ddim")
    # of the base 2 layers down and 3 up, of each control 2 down; one control acts twice
    assert calls == {**dict.fromkeys(range(5), 1), 5: 2, 6: 2, 7: 1, 8: 1}


def test_residuals_used_again_follow_the_curve(base, net):
    z, _, t, text = inputs(base)
    embedding = net.embed_hint(torch.rand(len(z), 3, 64, 64))
    guide = Guide(net, embedding, [1.0] * len(base.connections), 0.0, 1.0, True)
    saving = Saving(Fast(branch=2), 1)
    with torch.no_grad():
        first = _residuals(saving, [(guide, 0.5)], z, t, text)
        saving.fresh_branch = False
        again = _residuals(saving, [(guide, 0.25)], z, t, text)
        half = _residuals(saving, [(guide, 0.5)], z[1:], t, text[1:])
    assert all(torch.allclose(a, b / 2) for a, b in zip(again, first, strict=True))
    assert all(torch.equal(a, b[1:]) for a, b in zip(half, first, strict=True))


def test_a_control_that_starts_or_ends_has_all_computed_anew(base, net):
    """Features with its residuals are none without them."""
    controls = [Control(net, hint(), end=0.5)]
    steps: list[bool] = []
    begin = Saving.begin

    def spy(self, *args):
        begin(self, *args)
        steps.append(self.fresh_deep)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Saving, "begin", spy)
        made(base, controls, steps=6, fast="deep=6", scheduler="ddim")
    assert steps == [True, False, False, True, False, False]


def test_fast_says_where_it_is_left_out(base, net):
    fast = Fast(deep=2, layers=4, branch=2)
    guide = Guide(net, None, [], 0.0, 1.0, True)
    with pytest.warns(UserWarning, match="layers is 4, of which tiny has 3"):
        assert saving_for(fast, base, [guide], False, False).layers == 3
    for edits, adapting, words in [(True, False, "three evaluations"), (False, True, "references")]:
        with pytest.warns(UserWarning, match=f"fast is left out: .*{words}"):
            assert saving_for(fast, base, [guide], edits, adapting) is None
    one = tiny_backbone(
        unet=tiny_unet(
            block_out_channels=(16,),
            down_block_types=("DownBlock2D",),
            up_block_types=("UpBlock2D",),
        )
    )
    with pytest.warns(UserWarning, match="deep features of tiny are computed in every step"):
        assert saving_for(fast, one, [], False, False).fast == replace(fast, deep=1)
    assert saving_for(Fast(), base, [guide], False, False) is None
    assert saving_for(Fast(vae="tiny"), base, [guide], True, False) is None
    with pytest.warns(UserWarning, match="merge is left out: tiny has no attention between"):
        assert saving_for(Fast(merge=0.5), one, [], False, False) is None
