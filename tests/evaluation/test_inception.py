"""FID's Inception: the architecture by values that torch-fidelity 0.4.0 gave for the same random
weights.
"""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from zeroconv.errors import UserError
from zeroconv.evaluation.inception import Inception, load_inception
from zeroconv.evaluation.likeness import make_features
from zeroconv.evaluation.metrics import known_numbers

# features 0, 500, 1000, 1500, 2000 of `picture()` with the weights of `state()`, by
# torch-fidelity 0.4.0
THEIRS = [0.0, 4.5863, 5.7019, 0.7721, 0.2354]


def state() -> dict[str, torch.Tensor]:
    generator, made = torch.Generator().manual_seed(1), {}
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in Inception().state_dict().items()}
    for key, shape in shapes.items():
        if key.endswith("running_var"):
            made[key] = torch.rand(shape, generator=generator) + 0.5
        elif key.endswith("conv.weight"):
            made[key] = torch.randn(shape, generator=generator) * (2 / shape[1:].numel()) ** 0.5
        elif key.endswith("bn.weight"):
            made[key] = torch.ones(shape)
        elif key.endswith("num_batches_tracked"):
            made[key] = torch.tensor(0)
        else:
            made[key] = torch.randn(shape, generator=generator) * 0.1
    return made


def picture() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (1, 3, 299, 299), generator=generator).float()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "inception.safetensors"
    published = {
        "fc.weight": torch.zeros(1008, 2048),
        "fc.bias": torch.zeros(1008),
        "AuxLogits.x": torch.zeros(1),
    }
    save_file({**state(), **published}, path)
    return path


def test_inception_has_the_published_size():
    with torch.device("meta"):
        net = Inception()
    assert sum(p.numel() for p in net.parameters()) == 21_785_568


def test_inception_gives_what_torch_fidelity_gives(file):
    with torch.no_grad():
        features = load_inception(file)(picture())
    assert features.shape == (1, 2048)
    assert torch.allclose(features[0, ::500], torch.tensor(THEIRS), atol=1e-3)


def test_inception_measures_pictures(file):
    extract, named = make_features(str(file))
    assert named == str(file)
    assert extract([Image.new("RGB", (20, 30)), Image.new("RGB", (64, 64), "red")]).shape == (
        2,
        2048,
    )


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
def test_features_from_files_that_can_hold_code_are_refused(tmp_path, suffix):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / f"net{suffix}"))
    with pytest.raises(UserError, match=r"read from \.safetensors only"):
        make_features(str(tmp_path / f"net{suffix}"))


def test_features_of_another_network_are_refused(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="another kind of model"):
        make_features(str(tmp_path / "x.safetensors"))
    with pytest.raises(UserError, match="there is no feature network"):
        make_features(str(tmp_path / "nothing.safetensors"))


def test_a_report_holds_no_nan():
    import json

    report = {
        "a": float("nan"),
        "b": [1.0, float("inf"), {"c": -float("inf")}],
        "d": 2,
        "e": "nan",
        "f": (0.5,),
    }
    text = json.dumps(known_numbers(report), allow_nan=False)
    assert json.loads(text) == {
        "a": None,
        "b": [1.0, None, {"c": None}],
        "d": 2,
        "e": "nan",
        "f": [0.5],
    }
