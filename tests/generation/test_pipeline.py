"""`generate` on tiny Stable Diffusions with random weights: what must hold whatever the weights
are.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.tiny import randomise_, tiny_backbone
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.generation import MODES, SCHEDULERS, Control, generate
from zeroconv.generation.guidance import connection_scales
from zeroconv.generation.samplers.names import make_scheduler
from zeroconv.generation.sampling import Guide, predict


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture(scope="module")
def trained(backbone):
    """Random connections that are not zero: a control that does something."""
    return randomise_(ControlNet.from_backbone(backbone, condition="canny"))


def hint(seed: int = 0, size: int = 64) -> Image.Image:
    noise = np.random.default_rng(seed).random((size, size, 1)) > 0.8
    return Image.fromarray(np.repeat(noise, 3, axis=2).astype(np.uint8) * 255)


NAMES = ["ddim", "euler", "euler_a", "dpm++2m_karras", "unipc", "lcm", "euler_a_trailing"]
DRAWING = ["dpm++2m_sde", "dpm++3m_sde", "dpm++sde", "dpm2_a", "tcd"]  # noise in their steps


def pixels(images) -> np.ndarray:
    return np.stack([np.asarray(image, np.float32) for image in images])


@pytest.mark.parametrize("scheduler", NAMES)
@pytest.mark.parametrize("guidance", MODES)
def test_a_new_control_changes_nothing_bit_for_bit(backbone, scheduler, guidance):
    new = ControlNet.from_backbone(backbone)
    options = {"steps": 3, "scheduler": scheduler, "guidance": guidance, "output": "tensor"}
    without = generate(backbone, ["one", "two"], **options)
    with_it = generate(backbone, ["one", "two"], [Control(new, hint())], **options)
    assert all(torch.equal(a, b) for a, b in zip(without, with_it, strict=True))


@pytest.mark.parametrize("scheduler", NAMES + DRAWING)
def test_a_seed_gives_the_same_picture_in_any_batch(backbone, trained, scheduler):
    control = Control(trained, hint())
    options = {"steps": 3, "scheduler": scheduler, "output": "tensor", "count": 5, "seed": 11}
    together = generate(backbone, "a", [control], batch_size=5, **options)
    for batch_size in (1, 2):
        parts = generate(backbone, "a", [control], batch_size=batch_size, **options)
        assert max((a - b).abs().max() for a, b in zip(together, parts, strict=True)) < 1e-4
    assert (together[0] - together[1]).abs().max() > 0.01  # other seeds are other pictures
    alone = generate(
        backbone, "a", [control], seed=13, steps=3, scheduler=scheduler, output="tensor"
    )
    assert (alone[0] - together[2]).abs().max() < 1e-4


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name.endswith("_trailing")])
def test_trailing_steps_begin_at_the_last_timestep(backbone, name, monkeypatch):
    def first(kind: str) -> float:
        scheduler = make_scheduler(kind, backbone)
        scheduler.set_timesteps(20)
        return float(scheduler.timesteps[0])

    monkeypatch.setitem(backbone.scheduler_config, "timestep_spacing", "leading")
    assert first(name) == 999 > first(name.removesuffix("_trailing"))


def test_control_may_have_a_rule_for_connection_scales(backbone, trained):
    def made(weights):
        controls = [Control(trained, hint(), connection_scales=weights), Control(trained, hint(1))]
        return pixels(generate(backbone, "a", controls, guidance="cond", steps=2))

    for rule in MODES:
        assert np.array_equal(made(rule), made(connection_scales(rule, backbone.connections)))
    assert not np.array_equal(made("resolution"), made(None))
    with pytest.raises(UserError, match="no rule 'deep'"):
        made("deep")


def test_the_picture_answers_to_hint_prompt_and_negative(backbone, trained):
    def make(h=0, prompt="a", **options):
        return pixels(generate(backbone, prompt, [Control(trained, hint(h))], steps=3, **options))

    assert np.abs(make(0) - make(1)).mean() > 0.5
    assert np.abs(make(prompt="a") - make(prompt="zzz")).mean() > 0.01
    assert np.abs(make() - make(negative="zzz")).mean() > 0.01
    assert np.array_equal(make(), make())


@pytest.mark.parametrize("guidance", MODES)
def test_guidance_modes_differ_and_follow_the_weight(backbone, trained, guidance):
    def make(mode, weight):
        return pixels(
            generate(
                backbone,
                "a",
                [Control(trained, hint(), scale=weight)],
                steps=2,
                guidance=mode,
                cfg=3,
            )
        )

    assert not np.array_equal(make(guidance, 1.0), make(guidance, 0.5))
    others = [make(mode, 1.0) for mode in MODES if mode != guidance]
    assert all(not np.array_equal(make(guidance, 1.0), other) for other in others)


class Counting:
    """A control's forward, counted."""

    def __init__(self, net, monkeypatch):
        self.calls, self.embedded = 0, 0
        forward, embed = net.forward_embedded, net.embed_hint

        def counted(*args):
            self.calls += 1
            return forward(*args)

        def counted_embed(*args):
            self.embedded += 1
            return embed(*args)

        monkeypatch.setattr(net, "forward_embedded", counted)
        monkeypatch.setattr(net, "embed_hint", counted_embed)


@pytest.mark.parametrize(
    ("options", "calls"), [({}, 10), ({"start": 0.5}, 5), ({"end": 0.3}, 3), ({"scale": 0.0}, 0)]
)
def test_a_control_outside_its_window_or_without_weight_does_not_run(
    backbone, trained, monkeypatch, options, calls
):
    counting = Counting(trained, monkeypatch)
    generate(backbone, "a", [Control(trained, hint(), **options)], steps=10, scheduler="ddim")
    assert counting.calls == calls
    assert counting.embedded == (1 if calls else 0)  # once a picture, not once a step


def test_several_controls_add_up(backbone, trained):
    def make(*weights):
        controls = [Control(trained, hint(), scale=w) for w in weights]
        return generate(backbone, "a", controls, steps=2, output="tensor")[0]

    assert (make(0.75, 0.25) - make(1.0)).abs().max() < 1e-4


def test_one_hint_a_prompt(backbone, trained):
    both = generate(
        backbone, ["a", "b"], [Control(trained, [hint(0), hint(1)])], steps=2, output="tensor"
    )
    second = generate(backbone, "b", [Control(trained, hint(1))], steps=2, seed=1, output="tensor")
    assert (both[1] - second[0]).abs().max() < 1e-4


def test_hint_of_another_size_is_resized_and_noted(backbone, trained):
    with pytest.warns(UserWarning, match="100×100 pixels and was resized to 64×64"):
        (image,) = generate(backbone, "a", [Control(trained, hint(size=100))], steps=1)
    assert image.size == (64, 64)
    with pytest.warns(UserWarning, match="resized"):
        (wide,) = generate(backbone, "a", [Control(trained, hint().resize((256, 64)))], steps=1)
    # the hint's shape, as far as the sizes the encoder halves evenly allow
    assert wide.size == (128, 64)


def test_callback_hears_every_step_and_cfg_1_takes_no_second_half(backbone, monkeypatch):
    heard, sizes = [], []
    encode = backbone.encode
    monkeypatch.setattr(
        backbone, "encode", lambda z, t, text: sizes.append(len(z)) or encode(z, t, text)
    )
    generate(
        backbone,
        ["a", "b"],
        steps=3,
        cfg=1,
        scheduler="ddim",
        callback=lambda i, n, z: heard.append((i, n)),
    )
    assert heard == [(1, 3), (2, 3), (3, 3)] and set(sizes) == {2}


@pytest.mark.parametrize(
    ("halves", "encoded", "decoded"),
    [([], 2, 2), ([True], 2, 2), ([False], 2, 4), ([True, False], 2, 4)],
)
def test_a_prompt_that_is_the_negative_one_costs_once(
    backbone, trained, monkeypatch, halves, encoded, decoded
):
    """What both halves of guidance share is computed once, and it is what two halves would have
    given.
    """
    z, embedding = torch.randn(2, 4, 8, 8), trained.embed_hint(torch.rand(2, 3, 64, 64))
    guides = [
        Guide(trained, embedding, [1.0] * len(trained.connections), 0.0, 1.0, uncond)
        for uncond in halves
    ]
    t, cond, again = (
        torch.tensor(500),
        backbone.embed_text(["", "a"]),
        backbone.embed_text(["", "a"]),
    )
    with torch.no_grad():
        twice = predict(backbone, z, t, cond, again, guides, 5.0)
        encode, decode, rows = backbone.encode, backbone.decode, []
        monkeypatch.setattr(
            backbone, "encode", lambda z, t, text: rows.append(len(z)) or encode(z, t, text)
        )
        monkeypatch.setattr(
            backbone, "decode", lambda s, t, text: rows.append(len(s[0])) or decode(s, t, text)
        )
        once = predict(backbone, z, t, cond, cond, guides, 5.0)
    assert rows == [encoded, decoded]
    assert (once - twice).abs().max() < 1e-4 * twice.abs().max()
    if False in halves:  # the control of the conditional half alone is strengthened by the scale
        assert (once - predict(backbone, z, t, cond, None, guides, 1.0)).abs().max() > 1e-3


@pytest.mark.parametrize(("prompts", "rows"), [(["", ""], {2}), (["", "a"], {4})])
def test_empty_prompts_take_no_second_half(backbone, monkeypatch, prompts, rows):
    sizes = set()
    encode = backbone.encode
    monkeypatch.setattr(
        backbone, "encode", lambda z, t, text: sizes.add(len(z)) or encode(z, t, text)
    )
    generate(backbone, prompts, steps=2, cfg=4, scheduler="ddim")
    assert sizes == rows


def test_v_prediction_runs_and_differs():
    v = tiny_backbone(prediction_type="v_prediction")
    one, other = (generate(b, "a", steps=3, output="tensor")[0] for b in (v, tiny_backbone()))
    assert torch.isfinite(one).all() and (one - other).abs().max() > 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheduler": "unipcc"}, "did you mean 'unipc'"),
        ({"steps": -1}, "steps is -1; give a whole number from 1"),
        ({"steps": 0}, "steps is 0"),
        ({"cfg": float("nan")}, "cfg is nan"),
        ({"guidance": "hard"}, "resolution"),
        ({"seed": [1, 2, 3]}, "3 seeds"),
        ({"height": 63}, "multiple of 8"),
        ({"count": 0}, "count is 0"),
        ({"negative": ["a", "b", "c"]}, "3 negative prompts"),
        ({"connection_scales": [1.0], "controls": 1}, "1 connection_scales"),
        ({"controls": 1, "start": 0.6, "end": 0.4}, "0.6 to 0.4"),
        ({"controls": 1, "hint": "edges.png"}, "no picture at edges.png"),
        ({"latents": torch.zeros(1, 4, 3, 3)}, "latents have shape"),
    ],
)
def test_bad_input_gets_one_sentence(backbone, trained, options, message):
    options = dict(options)
    controls = []
    if options.pop("controls", None):
        window = {k: options.pop(k) for k in ("start", "end") if k in options}
        controls = [Control(trained, options.pop("hint", hint()), **window)]
    if "latents" in options:
        options["height"] = options["width"] = 64
    with pytest.raises(UserError, match=message):
        generate(backbone, "a", controls, **options)
