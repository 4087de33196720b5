"""Reference-only against its method written out by hand, and what it leaves behind: nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.helpers.tiny import inputs, randomise_, tiny_backbone, tiny_backbone_xl
from zeroconv.adapters.reference import Reference, References
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.generation import Control, ReferencePicture, generate
from zeroconv.layers.attention import attached, attentions


def picture(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def backbone() -> Any:
    return tiny_backbone()


def pictures(backbone: Any, adapters: list[Any], prompts: Any = ("a ball", "a cube"), **more: Any):
    given: dict[str, Any] = {"steps": 3, "scheduler": "ddim", "output": "tensor", "cfg": 4.0}
    given |= {"height": 64, "width": 64, **more}
    return torch.stack(generate(backbone, list(prompts), adapters=adapters, **given))


def by_hand(backbone: Any, bank: dict[str, Tensor], fidelity: float, halves: int, shown: float):
    """Hooks that let each attention over the picture see what `bank` keeps of the reference."""
    layers = attentions(backbone.unet)
    names = [name for name in layers if name.endswith("attn1")]
    order = sorted(names, key=lambda name: -layers[name].query_dim)
    handles = []
    for i, name in enumerate(order):
        # the order among those of one width matters where only a share of them sees it
        if i / len(order) >= shown:
            continue

        def hook(layer: Any, args: Any, kwargs: Any, output: Tensor, name: str = name) -> Tensor:
            x = args[0]
            seen = layer.processor(layer, x, torch.cat([x, bank[name]], 1))
            n = len(x) // halves
            if halves == 2:
                mixed = fidelity * output[:n] + (1 - fidelity) * seen[:n]
                return torch.cat([mixed, seen[n:]])
            return seen

        handles.append(layers[name].register_forward_hook(hook, with_kwargs=True))
    return handles


@pytest.mark.parametrize("make", [tiny_backbone, tiny_backbone_xl])
@pytest.mark.parametrize(("fidelity", "halves"), [(0.0, 2), (0.3, 2), (1.0, 2), (0.5, 1)])
def test_reference_is_its_method_written_out(make: Any, fidelity: float, halves: int) -> None:
    backbone = make()
    z, _, _, text = inputs(backbone, n=2 * halves)
    t = torch.tensor(400)
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    noise = [torch.Generator().manual_seed(seed) for seed in (7, 8)]
    reference = Reference(latents, fidelity, 1.0, noise)
    references = References(backbone, [reference])
    with torch.no_grad(), attached(backbone.unet, [references.changes]):
        references.record(backbone, [reference], t, text)
        ours = backbone.predict(z, t, text)
        references.record(backbone, [], t, text)
        plain = backbone.predict(z, t, text)

    drawn = torch.stack(
        [torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(s)) for s in (7, 8)]
    )
    seen = backbone.process.noised(latents, drawn, torch.full((2,), 400))
    bank: dict[str, Tensor] = {}
    handles = [
        layer.register_forward_pre_hook(lambda _, args, name=name: bank.update({name: args[0]}))
        for name, layer in attentions(backbone.unet).items()
    ]
    with torch.no_grad():
        assert torch.equal(backbone.predict(z, t, text), plain)
        backbone.predict(seen.repeat(halves, 1, 1, 1), t, text)
    for handle in handles:
        handle.remove()
    handles = by_hand(backbone, bank, fidelity, halves, 1.0)
    with torch.no_grad():
        theirs = backbone.predict(z, t, text)
    for handle in handles:
        handle.remove()
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(ours, plain, atol=1e-3)


def test_reference_changes_pictures_and_leaves_the_base_as_it_was(backbone: Any) -> None:
    plain = pictures(backbone, [])
    forwards = {name: vars(layer).get("forward") for name, layer in backbone.unet.named_modules()}
    seen = pictures(backbone, [ReferencePicture(picture(1))])
    black, white = (
        pictures(backbone, [ReferencePicture(Image.new("RGB", (64, 64), colour))])
        for colour in ("black", "white")
    )
    assert not torch.allclose(seen, plain, atol=1e-2)
    # what a tiny VAE of random weights sees of a picture is little
    assert not torch.allclose(black, white, atol=1e-4)
    assert torch.equal(pictures(backbone, [ReferencePicture(picture(1))]), seen)
    assert torch.equal(pictures(backbone, []), plain)
    after = {name: vars(layer).get("forward") for name, layer in backbone.unet.named_modules()}
    assert after == forwards
    with pytest.raises(ZeroDivisionError):
        pictures(backbone, [ReferencePicture(picture(1))], callback=lambda *_: 1 / 0)
    assert torch.equal(pictures(backbone, []), plain)


def test_reference_gives_the_same_picture_in_any_batch(backbone: Any) -> None:
    shown = [ReferencePicture([picture(1), picture(2)])]
    together = pictures(backbone, shown, seed=[3, 4])
    for i, prompt in enumerate(("a ball", "a cube")):
        alone = pictures(backbone, [ReferencePicture(picture(i + 1))], [prompt], seed=3 + i)
        assert torch.allclose(alone[0], together[i], atol=1e-4)


@pytest.mark.slow
def test_reference_heeds_scale_window_and_fidelity(backbone: Any) -> None:
    plain = pictures(backbone, [])
    assert torch.equal(pictures(backbone, [ReferencePicture(picture(1), scale=0.0)]), plain)
    never = ReferencePicture(picture(1), start=0.9, end=0.95)
    assert torch.equal(pictures(backbone, [never]), plain)
    by_fidelity = [pictures(backbone, [ReferencePicture(picture(1), f)]) for f in (0.0, 0.5, 1.0)]
    part = pictures(backbone, [ReferencePicture(picture(1), scale=0.4)])
    each = [plain, part, *by_fidelity]
    for i, first in enumerate(each):
        assert all(not torch.allclose(first, second, atol=1e-3) for second in each[i + 1 :])
    # without guidance there is no unconditional half to keep from seeing it
    alone = [pictures(backbone, [ReferencePicture(picture(1), f)], cfg=1.0) for f in (0.0, 1.0)]
    assert torch.equal(*alone)


def test_reference_beside_a_controlnet_and_another_reference(backbone: Any) -> None:
    control = Control(randomise_(ControlNet.from_backbone(backbone)).eval(), torch.rand(3, 64, 64))
    first, second = ReferencePicture(picture(1)), ReferencePicture(picture(2))
    each = [
        pictures(backbone, adapters, controls=controls)
        for adapters in ([], [first], [first, second])
        for controls in ([], [control])
    ]
    for i, one in enumerate(each):
        assert bool(one.isfinite().all())
        assert all(not torch.allclose(one, other, atol=1e-3) for other in each[i + 1 :])


def test_reference_of_another_shape_is_cut_with_a_note(backbone: Any) -> None:
    with pytest.warns(UserWarning, match="the reference is 90×64 pixels and was scaled to 64×64"):
        pictures(backbone, [ReferencePicture(picture(1, (90, 64)))])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"fidelity": 1.5}, "fidelity"),
        ({"scale": -0.1}, "scale"),
        ({"start": 0.5, "end": 0.5}, "start < end"),
        ({"picture": []}, "empty list"),
    ],
)
def test_reference_refuses_what_it_cannot_do(backbone: Any, wrong: Any, says: str) -> None:
    given = {"picture": picture(1), **wrong}
    with pytest.raises(UserError, match=says):
        pictures(backbone, [ReferencePicture(**given)])
