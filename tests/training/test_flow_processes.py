"""Controls of diffusion transformers by two processes (gloo), which share gradients or hold a part
each: the same control, and exact after a stop.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.test_distributed import finish, launch
from tests.training.test_flow import SHAPES, Make, make, root  # noqa: F401

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:T5 reads")]
FILE = "control/diffusion_pytorch_model.safetensors"
# both ways, and each once more from its second step on
CODE = """
import os, shutil, sys
from pathlib import Path
import torch
from accelerate import PartialState
torch.set_num_threads(1)
from zeroconv.training import run
rank, root = os.environ["RANK"], Path(sys.argv[1]).parent
for name, sharding in (("ddp", "none"), ("fsdp", "fsdp")):
    for out in (root / name, root / f"{name}-again"):
        if out.name.endswith("again"):
            if rank == "0":
                (out / "checkpoints").mkdir(parents=True)
                shutil.copy(root / name / "recipe.json", out)
                for path in (root / name / "checkpoints").glob("step-00000002-*"):
                    shutil.copy(path, out / "checkpoints")
            PartialState().wait_for_everyone()
        changes = [f"out={out}", f"training.sharding={sharding}"]
        run.train(sys.argv[1], overrides=changes, say=lambda line: None)
"""


@pytest.mark.parametrize("name", SHAPES)
def test_two_processes_train_one_flow_control(make: Make, tmp_path: Path, name: str) -> None:  # noqa: F811
    settings = {"steps": 4, "checkpoint_every": 2, "keep": 9, "threads": 1, "validate_every": 2}
    recipe = make(name, batch_size=2, sample_count=1, sample_steps=2, **settings)
    finish(launch(recipe, tmp_path, "two", CODE))
    ddp, fsdp = (load_file(tmp_path / way / FILE) for way in ("ddp", "fsdp"))
    for way, state in (("ddp", ddp), ("fsdp", fsdp)):
        again = load_file(tmp_path / f"{way}-again" / FILE)
        assert all(torch.equal(state[key], again[key]) for key in state)
    assert ddp.keys() == fsdp.keys()
    # AdamW makes a full step of 1e-2 even of a gradient that is only rounding
    apart = [float((ddp[key] - fsdp[key]).abs().mean()) for key in ddp]
    assert max(apart) < 1e-3
