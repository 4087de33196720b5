"""Compiled layers: the same losses and gradients, in training alone, few programs, exact resume."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch._dynamo.backends.registry import lookup_backend
from torch._dynamo.utils import counters

from tests.baselines.test_baselines import KINDS, OPTIONS
from tests.helpers.tiny import randomise_, tiny_backbone, tiny_backbone_xl, tiny_unet, tiny_unet_xl
from tests.helpers.tiny_folder import save_backbone
from tests.training.conftest import SIZE, make_pictures
from zeroconv.backbones import UNetBackbone
from zeroconv.baselines import make_baseline
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.layers.cpu import CpuConv2d, CpuLinear
from zeroconv.training import train
from zeroconv.training.execution import compile as compiling
from zeroconv.training.execution.compile import Compiled, check_compile, find_layers, networks_of
from zeroconv.training.lora import train_lora
from zeroconv.training.objective import ControlledLoss
from zeroconv.training.recipes.lora import LoraRecipe
from zeroconv.training.recipes.recipe import Recipe
from zeroconv.training.recipes.settings import check_recipe
from zeroconv.training.recipes.training import TrainingSettings
from zeroconv.training.trainer import Trainer

Make = Callable[..., Recipe]
# as few kinds of layers as there can be, since every kind takes a second
SMALL = {
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
}
SMALL_XL = {**SMALL, "attention_head_dim": (2, 2), "transformer_layers_per_block": (1, 2)}


def small(**options: Any) -> UNetBackbone:
    return tiny_backbone("v_prediction", unet=tiny_unet(**{**SMALL, **options}))


def small_xl() -> UNetBackbone:
    return tiny_backbone_xl(unet=tiny_unet_xl(**SMALL_XL))


BASES = {"small": small, "small-xl": small_xl}
WEIGHTS = "control/diffusion_pytorch_model.safetensors"


class Graphs:
    """A backend that hands a traced graph on to one that compiles in no time, and counts. "eager"
    runs it as it is, "aot_eager" derives its backward pass as Inductor's would be.
    """

    def __init__(self) -> None:
        self.count, self.backend = 0, "eager"

    def __call__(self, graph: Any, examples: Any) -> Any:
        self.count += 1
        return lookup_backend(self.backend)(graph, examples)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In place of the other tests' base, whose layers are of three times as many kinds."""
    folder = tmp_path_factory.mktemp("small")
    save_backbone(folder, small())
    return folder


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Graphs:
    counters.clear()
    counter = Graphs()
    monkeypatch.setattr(compiling, "BACKEND", counter)
    return counter


def quiet(line: str) -> None:
    pass


def make(backbone: UNetBackbone, autocast: torch.dtype | None = None) -> tuple[ControlledLoss, Any]:
    torch.manual_seed(0)
    control = randomise_(ControlNet.from_backbone(backbone, hint_widths=(4, 8, 8, 8)), 0.3).train()
    return ControlledLoss(backbone, control, autocast), backbone.embed_text(["a", "b"])


def gradients(loss: ControlledLoss, text: Any, size: tuple[int, int] = (16, 16)) -> list[Tensor]:
    """A loss for each of two examples, and the gradients of everything that trains."""
    generator, scale = torch.Generator().manual_seed(5), loss.backbone.latent_scale
    z, noise = torch.randn(2, 2, loss.backbone.latent_channels, *size, generator=generator)
    hints = torch.randint(0, 255, (2, 3, size[0] * scale, size[1] * scale), generator=generator).to(
        torch.uint8
    )
    errors = loss.errors(z, noise, torch.tensor([300, 700]), hints, text)
    errors.mean().backward()
    taken = [errors.detach(), *(p.grad for p in loss.parameters() if p.grad is not None)]
    loss.zero_grad()
    return taken


def alike(a: list[Tensor], b: list[Tensor], rtol: float = 1e-4, atol: float = 1e-5) -> bool:
    return len(a) == len(b) and all(
        torch.allclose(x, y, rtol=rtol, atol=atol) for x, y in zip(a, b, strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("base", "autocast", "backend"),
    [("small", None, "aot_eager"), ("small-xl", torch.bfloat16, "eager")],
)
def test_losses_and_gradients_are_the_same(
    base: str, autocast: Any, backend: str, graphs: Graphs
) -> None:
    graphs.backend = backend
    loss, text = make(BASES[base](), autocast)
    plain, names = gradients(loss, text), list(loss.state_dict())
    assert len(plain) > 100 and all(g.any() for g in plain)
    compiled = Compiled(networks_of(loss.backbone, loss.control), several_shapes=False)
    assert alike(plain, gradients(loss, text), 0, 0) and graphs.count == 0  # not yet
    with compiled.running():
        first = gradients(loss, text)
        count = graphs.count
        assert alike(first, gradients(loss, text), 0, 0)
    near = 1e-4 if autocast is None else 3e-2  # a bfloat16 holds 8 bits
    assert alike(plain, first, near, 0.1 * near)
    assert not counters["graph_break"]
    # one for every kind of layer and size it is met at, all of them in the first step
    assert len(compiled.programs) <= graphs.count == count < len(compiled.layers)
    assert list(loss.state_dict()) == names
    assert alike(plain, gradients(loss, text), 0, 0) and graphs.count == count  # no longer


@pytest.mark.slow
def test_several_shapes_share_their_programs(graphs: Graphs) -> None:
    loss, text = make(small())
    sizes = [(16, 16), (16, 24), (24, 16), (16, 40), (24, 32)]
    plain = {size: gradients(loss, text, size) for size in sizes}
    compiled, counts = Compiled([loss.control], several_shapes=True), []
    with compiled.running():
        for size in sizes:
            assert alike(plain[size], gradients(loss, text, size))
            counts.append(graphs.count)
    assert counts == [len(compiled.programs)] * len(sizes)
    assert not counters["graph_break"]


def test_a_kind_is_what_may_share_a_program() -> None:
    backbone = tiny_backbone()
    kinds = [compiling.kind_of(layer) for layer in find_layers([backbone.unet.mid_block])]
    assert len(kinds) == 3 and len(set(kinds)) == 2  # two residual blocks around a transformer
    other = tiny_backbone().unet.mid_block.requires_grad_(True)
    assert not set(kinds) & {compiling.kind_of(layer) for layer in find_layers([other])}


def test_a_transformer_of_many_blocks_is_its_blocks() -> None:
    names = [type(layer).__name__ for layer in find_layers([tiny_backbone_xl().unet.mid_block])]
    assert names.count("BasicTransformerBlock") == 2 and "Transformer2DModel" not in names
    assert [type(layer).__name__ for layer in find_layers([tiny_backbone().unet.mid_block])].count(
        "Transformer2DModel"
    )


@pytest.mark.slow
# a module of lllite is compiled once more, when it is first used in a second pass
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "lllite"])
def test_baselines(kind: str, graphs: Graphs) -> None:
    """Also the frozen networks that a baseline hides."""
    backbone = tiny_backbone()
    torch.manual_seed(0)
    baseline = randomise_(make_baseline(kind, backbone, **OPTIONS[kind]), 0.3).train()
    loss, text = ControlledLoss(backbone, baseline), backbone.embed_text(["a", "b"])
    plain = gradients(loss, text)
    compiled = Compiled(networks_of(backbone, baseline), several_shapes=False)
    with compiled.running():
        assert alike(plain, gradients(loss, text))
        count = graphs.count
        assert alike(plain, gradients(loss, text)) and graphs.count == count >= 20
    assert not counters["graph_break"]


# ---------------------------------------------------------------- whole runs


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def validation(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["validation"] for line in lines if "validation" in line]


FEW_BITS = {"frozen": "fp8", "precision": "bf16", "checkpointing": "full"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "backend"),
    [
        (FEW_BITS, "eager"),
        (FEW_BITS, "aot_eager"),
        ({"control.unlock_decoder": True, "frozen": "int8", "accumulation": 2}, "eager"),
        (
            {
                "control.connections": "lite",
                "control.hint_encoder": "paper",
                "control.hint_widths": None,
            },
            "eager",
        ),
    ],
    ids=["few bits", "few bits, with a backward pass of its own", "unlocked", "lite"],
)
def test_beside_other_settings(
    settings: dict, backend: str, recipe: Make, tmp_path: Path, graphs: Graphs
) -> None:
    graphs.backend = backend
    settings = {"steps": 3, "log_every": 1, "learning_rate": 1e-4, "frozen": "same", **settings}
    lines: list[str] = []
    plain = train(recipe(out=str(tmp_path / "plain"), **settings), say=quiet)
    compiled = train(
        recipe(out=str(tmp_path / "compiled"), compile=True, **settings), say=lines.append
    )
    near = 1e-2 if settings.get("precision") == "bf16" else 1e-4
    assert losses(compiled) == pytest.approx(losses(plain), rel=near)
    assert graphs.count > 5 and not counters["graph_break"]
    assert any("are compiled by torch" in line for line in lines)
    assert any("are computed again" in line for line in lines) == ("checkpointing" in settings)
    a, b = (load_file(run / WEIGHTS) for run in (plain, compiled))
    assert a.keys() == b.keys() and all(a[name].shape == b[name].shape for name in a)


@pytest.mark.slow
def test_steps_alone_are_compiled(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graphs: Graphs
) -> None:
    """All in the first one, whatever comes between them. What is measured before it is what a run
    measures that compiles nothing, bit for bit, if that has torch's own layers too, which Inductor
    takes the place of.
    """
    counts: list[int] = []
    seen: list[Trainer] = []
    step, init = Trainer._train_step, Trainer.__init__

    def count(self, micro):
        counts.append(graphs.count)
        return step(self, micro)

    def remember(self, *rest, **more) -> None:
        init(self, *rest, **more)
        seen.append(self)

    monkeypatch.setattr(Trainer, "_train_step", count)
    monkeypatch.setattr(Trainer, "__init__", remember)
    settings = {
        "steps": 4,
        "validate_every": 2,
        "sample_every": 2,
        "sample_count": 3,
        "sample_steps": 1,
    }
    run = train(recipe(compile=True, **settings), say=quiet)
    # the one is `check_compile`'s
    assert counts[0] == 1 < counts[1] and counts[1:] == [graphs.count] * 3
    assert (run / "samples" / "step-00000004.png").is_file()
    kinds = {type(m) for net in (seen[0].control, seen[0].backbone.unet) for m in net.modules()}
    assert nn.Conv2d in kinds and not kinds & {CpuConv2d, CpuLinear}
    monkeypatch.setattr(
        "zeroconv.training.execution.precision.use_cpu_layers_", lambda *modules: None
    )
    plain = train(recipe(out=str(tmp_path / "plain"), **settings), say=quiet)
    assert validation(run)[0] == validation(plain)[0]


CODE = """
import sys
from zeroconv.training import run
from zeroconv.training.execution import compile as compiling
from zeroconv.training.recipes.recipe import load_recipe
compiling.BACKEND = "eager"
run.train(load_recipe(sys.argv[1], sys.argv[2:]), say=print)
"""


@pytest.mark.slow
@pytest.mark.parametrize("shapes", [1, 3])
def test_a_run_goes_on_in_another_process(
    shapes: int, recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit; with several shapes the second process meets them in another order."""
    folder = tmp_path / "shapes"
    folder.mkdir()
    make_shapes(folder, shapes)
    settings = {
        "steps": 7,
        "compile": True,
        "threads": 1,
        "checkpoint_every": 4,
        "data.train": [str(folder)],
    }
    settings |= {"data.buckets": shapes > 1, "data.validation": [f"{folder}?limit=6"]}
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    before = torch.get_num_threads()
    try:
        straight = train(recipe(out=str(tmp_path / "straight"), **settings), say=quiet)
    finally:
        torch.set_num_threads(before)
    cut = tmp_path / "cut"  # as it was after 4 steps
    shutil.copytree(straight, cut)
    for left in [
        *(cut / "checkpoints").glob("step-00000007-*"),
        cut / "control" / Path(WEIGHTS).name,
    ]:
        left.unlink()
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(json.loads(recipe(out=str(cut), **settings).model_dump_json())))
    words = [sys.executable, "-W", "ignore", "-c", CODE, str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    output = subprocess.run(
        words, env=environment, capture_output=True, text=True, check=True, timeout=600
    ).stdout
    assert "going on from step 4 of 7" in output
    a, b = (load_file(run / WEIGHTS) for run in (straight, cut))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def make_shapes(folder: Path, shapes: int) -> None:
    """Pictures that are square, wide and tall by turns."""
    make_pictures(folder, 24)
    for i in range(24):
        size = [(SIZE, SIZE), (96, 48), (48, 96)][i % shapes]
        for name in (f"{i}.png", f"{i}-hint.png"):
            with Image.open(folder / name) as picture:
                picture.resize(size).save(folder / name)


def test_a_run_cannot_begin_to_compile_half_way(recipe: Make, graphs: Graphs) -> None:
    train(recipe(steps=2), say=quiet)
    with pytest.raises(UserError, match=r"training.compile was False, is True"):
        train(recipe(steps=4, compile=True), say=quiet)


@pytest.mark.slow
def test_a_lora_of_the_base(base: Path, pictures: Path, tmp_path: Path, graphs: Graphs) -> None:
    def run(name: str, **training: Any) -> Path:
        values = {
            "steps": 3,
            "batch_size": 2,
            "learning_rate": 1e-4,
            "validate_every": 0,
            "sample_count": 0,
        }
        values = {
            "out": str(tmp_path / name),
            "base": str(base),
            "device": "cpu",
            "lora": {"rank": 4},
            "data": {
                "train": str(pictures),
                "size": 64,
                "cache": str(tmp_path / "cache"),
                "validation_count": 6,
            },
            "training": {**values, "log_every": 1, **training},
        }
        return train_lora(check_recipe(LoraRecipe, values, "test"), say=quiet)

    plain, compiled = run("plain"), run("compiled", compile=True, checkpointing="full")
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-4)
    assert graphs.count > 10 and not counters["graph_break"]
    a, b = (
        load_file(next((folder / "lora").glob("*.safetensors"))) for folder in (plain, compiled)
    )
    assert a.keys() == b.keys()


# ---------------------------------------------------------------- where it cannot be


def settings_of(**changes: Any) -> TrainingSettings:
    return TrainingSettings.model_validate({"steps": 1, "compile": True, **changes})


def test_without_a_compiler_a_run_ends_before_it_begins(
    recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(graph: Any, examples: Any) -> Any:
        raise RuntimeError("no working C++ compiler found\nand a long story")

    monkeypatch.setattr(compiling, "BACKEND", missing)
    settings = recipe(compile=True)
    with pytest.raises(UserError, match=r"training.compile needs a C\+\+ compiler") as caught:
        train(settings, say=quiet)
    assert "\n" not in str(caught.value) and not Path(settings.out).exists()
    check_compile(settings_of(compile=False), "cpu")


def test_bfloat16_weights_on_an_old_processor_are_refused(
    monkeypatch: pytest.MonkeyPatch, graphs: Graphs
) -> None:
    settings = settings_of(precision="bf16_weights", optimizer="adamw8bit")
    monkeypatch.setattr(compiling, "has_bf16_matrix_unit", lambda: False)
    with pytest.raises(UserError, match="leave one of the two out"):
        check_compile(settings, "cpu")
    monkeypatch.setattr(compiling, "has_bf16_matrix_unit", lambda: True)
    check_compile(settings, "cpu")


@pytest.mark.slow
def test_inductor_gradients_are_near_eager_ones_and_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run takes, of some layers: all of them take minutes."""
    loss, text = make(small())
    plain = gradients(loss, text)
    compiled = Compiled([loss.backbone.unet.up_blocks[0]], several_shapes=False)
    with compiled.running():
        by_inductor = [gradients(loss, text) for _ in range(2)]
    assert alike(plain, by_inductor[0]) and alike(by_inductor[0], by_inductor[1], 0, 0)
    assert not alike(plain, by_inductor[0], 0, 0)  # these are other programs, which round elsewhere
