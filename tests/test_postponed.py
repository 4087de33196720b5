"""Modules that are executed when they are first used are those that an import would have given."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading

import pytest

from zeroconv.postponed import MODULES, Empty, Finder, Postponed, postpone

BOX = {
    "box/__init__.py": "ran = 'box'\nfrom box.inner import Thing\nfrom box import other\n",
    "box/inner.py": "class Thing:\n    pass\ndef double(x):\n    return 2 * x\n",
    "box/other.py": "count = 0\n",
    "shelf/__init__.py": "import box.inner\nfrom shelf.part import size\n",
    "shelf/part.py": "size = 3\n",
    "register.py": "marked = []\ndef mark(x):\n    marked.append(x)\n    return x\nlimit = 7\n",
    "broken.py": "import os\nvalue = 1\nif not os.getenv('MENDED'): raise ImportError('not yet')",
    "chest/__init__.py": "__version__ = '1'\nfrom chest.drawer import knob\nran = 'chest'\n",
    "chest/drawer.py": "knob = object()\nhandle = 2\n",
    "lazy/__init__.py": "import sys, types\nclass Lazy(types.ModuleType):\n"
    "    def __getattr__(self, name):\n        if name == 'late': return 'lazily'\n"
    "        raise AttributeError(name)\n"
    "sys.modules[__name__] = Lazy(__name__)\nsys.modules[__name__].__path__ = __path__\n",
    "lazy/part.py": "size = 4\n",
    "styles.py": "known = []\n",
    "user.py": "from styles import known\ndef use(): return list(known)\n",
    "more.py": "from styles import known\nknown.append('more')\n",
    "slow.py": "import time\ntime.sleep(0.05)\nvalue = 5\n",
}
TABLE = {
    "box": Postponed(),
    "box.inner": Postponed(names=("Thing", "double")),
    "shelf": Postponed(parts=True),
    "register": Postponed(markers=("mark",)),
    "broken": Postponed(),
    "chest": Postponed(
        parts=True, homes={"knob": "chest.drawer", "drawer": "chest.drawer"}, version=True
    ),
    "lazy": Postponed(parts=True),
    "user": Postponed(names=("use",), then=("more",)),
    "more": Postponed(),
    "slow": Postponed(),
}


@pytest.fixture
def finder(tmp_path, monkeypatch):
    for name, text in BOX.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    finder = Finder(TABLE)
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    before = set(sys.modules)
    yield finder
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_postponed_module_is_executed_when_an_attribute_is_read(finder):
    module = importlib.import_module("register")
    assert isinstance(module, Empty)
    assert module.limit == 7
    assert type(module) is type(sys) and sys.modules["register"] is module
    assert not isinstance(module.__spec__.loader, type(finder))
    with pytest.raises(AttributeError):
        _ = module.missing


def test_postponed_names_are_given_without_executing_and_work(finder):
    from box.inner import Thing, double

    assert isinstance(sys.modules["box"], Empty) and isinstance(sys.modules["box.inner"], Empty)
    assert not isinstance(3, Thing) and not isinstance(3, str | Thing)
    assert isinstance(sys.modules["box.inner"], Empty), "a check executes nothing"
    assert double(4) == 8
    real = sys.modules["box.inner"].Thing
    assert sys.modules["box"].Thing is real, "inside the package it is the class itself"
    assert isinstance(real(), Thing) and issubclass(real, Thing) and isinstance(Thing(), real)

    class More(Thing):
        pass

    assert More.__mro__[1] is real


def test_postponed_markers_are_applied_again(finder):
    from register import mark

    @mark
    def one(): ...

    assert isinstance(sys.modules["register"], Empty)
    assert sys.modules["register"].marked == [one]
    mark("two")
    assert sys.modules["register"].marked == [one, "two"]


def test_submodules_execute_a_postponed_package_first(finder):
    importlib.import_module("box")
    other = importlib.import_module("box.other")
    assert not isinstance(sys.modules["box"], Empty)
    assert sys.modules["box"].other is other is sys.modules["box.other"]
    assert other.__spec__.loader.path.endswith("other.py")


def test_parts_of_a_postponed_package_are_imported_alone(finder):
    part = importlib.import_module("shelf.part")
    assert part.size == 3 and isinstance(sys.modules["shelf"], Empty)
    assert sys.modules["shelf"].part is part
    assert sys.modules["shelf"].size == 3 and not isinstance(sys.modules["shelf"], Empty)


def test_a_name_of_a_postponed_package_is_taken_from_the_part_that_has_it(finder, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"{name} 7")
    chest = importlib.import_module("chest")
    from chest import drawer, knob

    assert chest.__version__ == "chest 7"
    assert knob is drawer.knob and drawer is sys.modules["chest.drawer"]
    assert isinstance(chest, Empty), "taken without executing the package"
    assert chest.ran == "chest" and not isinstance(chest, Empty)
    assert chest.knob is knob and chest.drawer is drawer and chest.__version__ == "1"


def test_a_postponed_module_that_puts_another_in_its_place_gives_that_ones_attributes(finder):
    held = importlib.import_module("lazy")
    part = importlib.import_module("lazy.part")
    assert isinstance(sys.modules["lazy"], Empty)
    assert held.late == "lazily"
    real = sys.modules["lazy"]
    assert type(real).__name__ == "Lazy" and real is importlib.import_module("lazy")
    assert real.part is part, "parts that were imported before are its attributes"
    with pytest.raises(AttributeError):
        _ = held.missing


def test_modules_that_register_with_a_postponed_one_are_executed_after_it(finder):
    from user import use

    importlib.import_module("more")
    assert isinstance(sys.modules["more"], Empty)
    assert use() == ["more"] and not isinstance(sys.modules["more"], Empty)


def test_a_postponed_module_that_fails_is_tried_again(finder, monkeypatch):
    module = importlib.import_module("broken")
    with pytest.raises(ImportError, match="not yet"):
        _ = module.value
    monkeypatch.setenv("MENDED", "1")
    assert module.value == 1 and sys.modules["broken"] is module


def test_threads_that_use_a_postponed_module_at_once_all_get_it(finder):
    module = importlib.import_module("slow")
    values = []

    def read():
        values.append((module.value, importlib.import_module("slow").value))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values == [(5, 5)] * 8


def test_postpone_is_for_commands_only():
    """A program that imports the package keeps its imports as they are."""
    code = "import sys, zeroconv; print([type(f).__module__ for f in sys.meta_path])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "zeroconv" not in out.stdout


PICTURE = """
import sys
sys.argv = ["zeroconv", "generate", "a red ball", "--steps", "1", "--out", sys.argv[1]]
from zeroconv.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end
"""

UNUSED = """
from zeroconv.postponed import MODULES, Empty
there = [n for n in MODULES if n in sys.modules and not isinstance(sys.modules[n], Empty)]
assert not there, there
heavy = ("torch._dynamo.utils", "torch._inductor", "sympy", "requests.api",
    "torch.distributed.tensor._api", "transformers.quantizers.base",
    "peft.config", "scipy.optimize._optimize",
    "diffusers.models.transformers.transformer_flux", "diffusers.models.unets.unet_3d_blocks",
    "diffusers.models.controlnets.controlnet_flux", "transformers.generation.utils",)
there = [n for n in heavy if n in sys.modules]
assert not there, there
"""

AFTERWARDS = """
import inspect, pickle, torch, diffusers, peft, scipy.stats, scipy.integrate
from diffusers import FluxTransformer2DModel, UNet2DConditionModel, AutoencoderKLWan
from diffusers.hooks import apply_layerwise_casting, apply_group_offloading
from diffusers.models.transformers import SD3Transformer2DModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft import LoraConfig, inject_adapter_in_model
from transformers import AutoModelForCausalLM, GenerationMixin
assert scipy.stats.norm.cdf(0.0) == 0.5
assert inspect.getsource(diffusers.models.transformers)
unet = UNet2DConditionModel(sample_size=8, block_out_channels=(8, 16), norm_num_groups=4,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), cross_attention_dim=8,
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), layers_per_block=1, attention_head_dim=4)
assert unet.device.type == "cpu"
unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
layer = next(m for m in unet.modules() if isinstance(m, BaseTunerLayer))
import diffusers.loaders.lora_base as lora_base
assert isinstance(layer, lora_base.BaseTunerLayer)
import transformers, transformers.models
assert transformers.__version__ == transformers.utils.__version__
assert transformers.CLIPTextModel is transformers.models.clip.modeling_clip.CLIPTextModel
assert transformers.PreTrainedModel is transformers.modeling_utils.PreTrainedModel
assert transformers.initialization.zeros_ and callable(transformers.pipeline)
assert isinstance(transformers.CLIPTextModel(transformers.CLIPTextConfig(hidden_size=8,
    intermediate_size=8, num_attention_heads=2, num_hidden_layers=1)), lora_base.PreTrainedModel)
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES as names
assert "aimv2" in names and transformers.AutoImageProcessor.from_pretrained
from transformers.distributed.parallel_utils import ALL_PARALLEL_STYLES
from transformers.distributed.tensor_parallel import verify_tp_plan
verify_tp_plan([], {})
assert "ep_dispatch_experts" in ALL_PARALLEL_STYLES
from torch.distributed.tensor import DTensor
assert not isinstance(torch.zeros(1), DTensor)
z, text = torch.zeros(1, 4, 8, 8), torch.zeros(1, 3, 8)
eager = unet(z, 3, text).sample
apply_layerwise_casting(unet, torch.bfloat16, torch.float32)
torch._dynamo.config.suppress_errors = False
block = torch.nn.Linear(4, 4)
compiled = torch.compile(block, backend="eager")
assert torch.equal(compiled(torch.ones(2, 4)), block(torch.ones(2, 4)))
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
assert id(Attention) in torch._dynamo.trace_rules._allowed_callable_ids(), "marked again"
"""


@pytest.mark.slow
def test_a_picture_of_the_command_line_executes_no_postponed_module(tmp_path):
    _run(PICTURE + UNUSED, tmp_path / "a.png")


@pytest.mark.slow
def test_libraries_work_after_a_picture_was_made_with_postponed_modules(tmp_path):
    _run(PICTURE + AFTERWARDS, tmp_path / "a.png")


@pytest.mark.slow
def test_libraries_work_with_postponed_modules_of_every_order():
    """Each module first, in a process of its own, then the rest."""
    for first in MODULES:
        code = (
            "import sys, importlib\nfrom zeroconv.postponed import *\npostpone()\n"
            f"module = importlib.import_module({first!r})\n"
            "assert not hasattr(module, 'no_such_name')\n"
            "assert not isinstance(sys.modules[module.__name__], Empty)\n"
            "import peft.tuners.lora, diffusers.models.unets.unet_2d_condition\n"
            "import transformers.models.clip.modeling_clip\n"
        )
        _run(code)


def test_postpone_adds_one_finder(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    postpone()
    postpone()
    assert sum(isinstance(finder, Finder) for finder in sys.meta_path) == 1


def _run(code, *words):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
