"""Training one net on hints of several kinds: a ControlNet Union that diffusers reads."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.tiny import doubled, inputs, randomise_, tiny_backbone
from tests.training.test_validation_prompts import weights
from zeroconv.control.union import ControlNetUnion
from zeroconv.data.batches import Batch
from zeroconv.errors import UserError
from zeroconv.evaluation.reader import Reader, save_reader
from zeroconv.training.objective import ControlledLoss, stream
from zeroconv.training.recipes.recipe import Recipe
from zeroconv.training.reward.reward import Reward
from zeroconv.training.run import train


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture(scope="module")
def union(backbone) -> ControlNetUnion:
    net = randomise_(ControlNetUnion.from_backbone(backbone, num_control_type=8))
    torch.nn.init.normal_(net.spatial_ch_projs.weight, std=0.3)
    return net


def test_union_of_mixed_kinds_is_each_kind_by_itself(backbone, union) -> None:
    """Losses and residuals of a batch with a kind a picture, against the network of that kind."""
    z, hint, t, text = inputs(backbone, 3)
    kinds = torch.tensor([1, 3, 7])
    exact, given = copy.deepcopy(union).double(), doubled(z, hint, t, text)
    with exact.showing(kinds):
        together = exact(*given)
    assert exact.kind is None
    for i, kind in enumerate(kinds.tolist()):
        alone = exact.of_kind(kind)(*(x[i : i + 1] for x in given))
        for one, many in zip(alone, together, strict=True):
            torch.testing.assert_close(many[i : i + 1], one, rtol=1e-6, atol=1e-6)

    batch = Batch(torch.cat([z, z - 3], 1), (hint * 255).byte(), text, np.arange(3), None, kinds)
    loss = ControlledLoss(backbone, union)
    mixed = loss(batch, stream("cpu", 1))
    drawn = loss.draw(batch.moments, stream("cpu", 1))
    each = [
        ControlledLoss(backbone, union.of_kind(kind)).errors(
            *(x[i : i + 1] for x in drawn), batch.hints[i : i + 1], text[i : i + 1]
        )
        for i, kind in enumerate(kinds.tolist())
    ]
    torch.testing.assert_close(mixed, torch.cat(each).mean(), rtol=1e-4, atol=1e-6)

    # the embeddings of kinds that are in the batch learn, and no others
    union.requires_grad_(True)
    loss(batch, stream("cpu", 1)).backward()
    gradient = union.task_embedding.grad
    assert gradient is not None
    assert gradient.abs().sum(1).nonzero().flatten().tolist() == kinds.tolist()


@pytest.fixture
def both(recipe, pictures: Path) -> Callable[..., Recipe]:
    """Depth hints of the pictures' own, and canny edges drawn from them."""

    def make(**changes) -> Recipe:
        lines = [json.loads(x) for x in (pictures / "metadata.jsonl").read_text().splitlines()]
        bare = pictures.parent / "bare"
        bare.mkdir(exist_ok=True)
        for line in lines[:20]:
            target = bare / line["file_name"]
            target.write_bytes((pictures / line["file_name"]).read_bytes())
            target.with_suffix(".txt").write_text(line["text"])
        values = {
            "control": {"kind": "union", "options": {"hint_widths": [4, 8, 8, 8]}},
            "data.train": [f"{pictures}?limit=20", f"{bare}?condition=canny"],
            "steps": 3,
            "validate_every": 2,
            "checkpoint_every": 2,
        }
        return recipe(**{**values, **changes})

    return make


@pytest.mark.slow
def test_union_hints_are_read_back_by_their_own_condition(both, tmp_path: Path) -> None:
    reader = tmp_path / "reader.safetensors"
    save_reader(Reader(8), reader)
    taken: list[set[str]] = []
    read = Reward._read

    def record(self: Reward, pictures, hints, weights, numbers):
        names = {number: name for name, number in self.numbers.items() if name is not None}
        taken.append({names.get(number, "depth") for number in numbers})
        return read(self, pictures, hints, weights, numbers)

    reward = {"weight": 1.0, "share": 0.5, "reader": str(reader)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reward, "_read", record)
        train(both(reward=reward, batch_size=8), say=silent)
    assert set.union(*taken) == {"canny", "depth"}


@pytest.mark.slow
def test_union_run_loads_in_diffusers(both, tmp_path: Path) -> None:
    from diffusers import ControlNetUnionModel

    Image.new("RGB", (64, 64), "white").save(tmp_path / "x.png")
    prompts = [{"prompt": "a", "hint": str(tmp_path / "x.png"), "kind": "canny"}]
    run = train(both(sample_steps=1, validation=prompts), say=silent)
    assert list((run / "samples").glob("validation-*.png"))
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert any("validation" in line for line in lines)

    theirs = ControlNetUnionModel.from_pretrained(run / "control").eval()
    assert theirs.config.num_control_type == 6
    ours = ControlNetUnion.load(run / "control").of_kind("canny").eval()
    backbone = tiny_backbone()
    z, hint, t, text = inputs(backbone, 1)
    with torch.no_grad():
        down, middle = theirs(
            z,
            t,
            text.hidden,
            [hint],
            torch.tensor([[0.0, 0, 0, 1, 0, 0]]),
            [3],
            conditioning_scale=[1.0],
            return_dict=False,
        )
        residuals = ours(z, hint, t, text)
    for mine, other in zip(residuals, [*down, middle], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_union_run_resumes_exactly(both, tmp_path: Path) -> None:
    """With pictures of held-out hints of both kinds, read back on the way."""
    run = train(both(), say=silent)
    more = {"out": str(tmp_path / "again"), "sample_count": 4, "sample_steps": 1}
    train(both(**{**more, "steps": 2}), say=silent)
    assert weights(train(both(**more), say=silent)) == weights(run)


def test_union_recipes_that_cannot_be_are_refused_before_the_cache(both, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no kind 'person'"):
        train(both(**{"data.condition": "person"}), say=silent)
    wrong = {"kind": "union", "options": {"rank": 3}}
    with pytest.raises(UserError, match=r"control\.options\.rank is none of a Union's"):
        both(control=wrong)
    wrong = {"kind": "union", "options": {"num_control_type": 2}}
    with pytest.raises(UserError, match="2 kinds"):
        train(both(control=wrong), say=silent)
    assert not (tmp_path / "cache").exists()
