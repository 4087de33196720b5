"""LoRAs of few steps: pictures are those of diffusers' pipelines with the same file, sampler and
guidance, and what a file is made for is known or told.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.helpers.tiny import randomise_, tiny_backbone, tiny_backbone_xl, tiny_unet
from tests.helpers.tiny_folder import save_backbone
from zeroconv.backbones import load_backbone
from zeroconv.checkpoints.lora import FILE, LCM, read_lora
from zeroconv.checkpoints.lora.few_steps import HEADER, _of_name
from zeroconv.checkpoints.names import Topology, unet_names
from zeroconv.control import ControlNet
from zeroconv.control.files import diffusers_state
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate
from zeroconv.generation.samplers.few_steps import note_few_steps

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "ff.net.2", "conv1", "time_emb_proj"]
RANK, ALPHA = 4, 8.0


def adapter_of(unet: Any) -> dict[str, Tensor]:
    """Random matrices under peft's names."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS))
    state = get_peft_model_state_dict(unet)
    return {name: 0.1 * torch.randn(value.shape) for name, value in state.items()}


def diffusers_layout(adapter: dict[str, Tensor], unet: Any) -> dict[str, Tensor]:
    """As diffusers' trainers write it (TCD-SD15-LoRA); α is the rank."""
    return {f"unet.{name}": value for name, value in adapter.items()}


def kohya_layout(
    adapter: dict[str, Tensor], unet: Any, names: Any = lambda module: module
) -> dict[str, Tensor]:
    """As LCM-LoRA and Hyper-SD are published: underscores, and an α for each module."""
    state: dict[str, Tensor] = {}
    for name, value in adapter.items():
        module, _, role = name.removesuffix(".weight").rpartition(".")
        flat = "lora_unet_" + names(module).replace(".", "_")
        state[f"{flat}.lora_{'down' if role == 'lora_A' else 'up'}.weight"] = value
        state[f"{flat}.alpha"] = torch.tensor(ALPHA)
    return state


def a1111_layout(adapter: dict[str, Tensor], unet: Any) -> dict[str, Tensor]:
    """The same after the original model's names, as SDXL-Lightning has it."""
    original = unet_names(Topology.of_diffusers(unet.state_dict()))

    def renamed(module: str) -> str:
        owner = module
        while owner not in original:
            owner = owner.rpartition(".")[0]
        return original[owner] + module[len(owner) :]

    return kohya_layout(adapter, unet, renamed)


# the name of a file → its layout, diffusers' sampler, ours as the file has it, and settings
CASES: dict[str, dict[str, Any]] = {
    "lcm-lora-sdv1-5": {
        "layout": kohya_layout, "class": "LCMScheduler", "sampler": "lcm", "cfg": 1.0,
    },
    "TCD-SD15-LoRA": {
        "layout": diffusers_layout, "class": "TCDScheduler", "sampler": "tcd", "cfg": 1.0,
    },
    "Hyper-SD15-4steps-CFG-lora": {
        "layout": kohya_layout, "class": "DDIMScheduler", "sampler": "ddim_trailing", "cfg": 5.0,
    },
    "sdxl_lightning_4step_lora": {
        "layout": a1111_layout, "class": "EulerDiscreteScheduler", "sampler": "euler_trailing",
        "cfg": 1.0,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base's folder, sd/, and LoRAs of it under the names of published ones."""
    root = tmp_path_factory.mktemp("few")
    save_backbone(root / "sd")
    adapter = adapter_of(tiny_unet())
    for name in CASES:
        write_lora(root, name, adapter, tiny_unet())
    return root


def write_lora(root: Path, name: str, adapter: dict[str, Tensor], unet: Any) -> None:
    """In its layout, and in one that every pipeline of diffusers reads, with the same numbers."""
    layout = CASES[name]["layout"]
    readable = kohya_layout if layout is a1111_layout else layout
    for folder, write in ((root, layout), (root / "readable", readable)):
        folder.mkdir(exist_ok=True)
        state = {key: value.contiguous() for key, value in write(adapter, unet).items()}
        save_file(state, lora(folder, name))


def lora(root: Path, name: str) -> Path:
    return root / f"{name}.safetensors"


def theirs(
    folder: Path, name: str, steps: int, cfg: float, kind: str = "StableDiffusionPipeline",
    eta: float | None = None, **more: Any,
) -> Tensor:  # fmt: skip
    """A picture of diffusers' pipeline, (3, H, W) in [0, 1]."""
    import diffusers

    case = CASES[name]
    parts = {"safety_checker": None} if "XL" not in kind else {}
    parts |= {"controlnet": more.pop("controlnet")} if "controlnet" in more else {}
    pipe = getattr(diffusers, kind).from_pretrained(folder, **parts)
    pipe.set_progress_bar_config(disable=True)
    spacing = {"timestep_spacing": "trailing"} if "trailing" in case["sampler"] else {}
    pipe.scheduler = getattr(diffusers, case["class"]).from_config(pipe.scheduler.config, **spacing)
    pipe.load_lora_weights(str(lora(folder.parent / "readable", name)))
    if case["sampler"] == "tcd":  # the pipelines' own is 0, the scheduler's 0.3
        more["eta"] = 0.3 if eta is None else eta
    made = pipe(
        "a red ball", num_inference_steps=steps, guidance_scale=cfg, output_type="pt",
        generator=torch.Generator().manual_seed(3), height=64, width=64, **more,
    )  # fmt: skip
    return made.images[0].float()


def ours(folder: Path, name: str, steps: int, cfg: float, controls: Any = (), **more: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the name, and of other steps
        backbone = load_backbone(folder, lora=lora(folder.parent, name))
        assert backbone.few_steps.scheduler == CASES[name]["sampler"]
        options = {"steps": steps, "cfg": cfg, "seed": 3, "guidance": "both", "output": "tensor"}
        return generate(backbone, "a red ball", controls, height=64, width=64, **options, **more)[0]


@pytest.mark.parametrize(
    ("name", "steps", "cfg", "more"),
    [
        ("lcm-lora-sdv1-5", 4, 1.0, {}),
        ("sdxl_lightning_4step_lora", 4, 1.0, {}),
        *(
            pytest.param(name, steps, cfg, more, marks=pytest.mark.slow)
            for name, steps, cfg, more in [
                *((name, steps, CASES[name]["cfg"], {}) for name in CASES for steps in (4, 8)),
                *((name, steps, 2.0, {}) for name in CASES for steps in (2, 4)),
                ("TCD-SD15-LoRA", 8, 1.0, {"eta": 1.0}),
                ("TCD-SD15-LoRA", 4, 1.0, {"eta": 0.0}),
            ]
        ),
    ],
)
def test_pictures_of_few_steps_are_diffusers(files, name, steps, cfg, more):
    expected = theirs(files / "sd", name, steps, cfg, **more)
    assert expected.std() > 0.01
    assert (ours(files / "sd", name, steps, cfg, **more) - expected).abs().max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("steps", [4, 8])
@pytest.mark.parametrize("name", CASES)
def test_controlled_pictures_of_few_steps_are_diffusers(files, name, steps):
    from diffusers import ControlNetModel

    control = randomise_(ControlNet.from_backbone(tiny_backbone()))
    net = ControlNetModel(**{k: v for k, v in control.config.items() if k != "zeroconv"})
    net.load_state_dict(diffusers_state(control))
    hint, cfg = torch.rand(3, 64, 64), max(1.5, CASES[name]["cfg"])
    expected = theirs(
        files / "sd", name, steps, cfg, "StableDiffusionControlNetPipeline", controlnet=net,
        image=hint[None],
    )  # fmt: skip
    made = ours(files / "sd", name, steps, cfg, [Control(control, hint)])
    assert (made - expected).abs().max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_pictures_of_few_steps_of_sdxl_are_diffusers(tmp_path, name):
    backbone = save_backbone(tmp_path / "xl", tiny_backbone_xl())
    adapter = adapter_of(tiny_backbone_xl().unet)
    write_lora(tmp_path, name, adapter, backbone.unet)
    cfg = CASES[name]["cfg"]
    expected = theirs(tmp_path / "xl", name, 4, cfg, "StableDiffusionXLPipeline")
    assert (ours(tmp_path / "xl", name, 4, cfg) - expected).abs().max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("steps", [4, 8])
def test_pictures_of_a_distilled_unet_are_those_of_diffusers_lcm_pipeline(steps):
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler

    backbone = tiny_backbone(unet=tiny_unet(time_cond_proj_dim=12))
    torch.nn.init.normal_(backbone.unet.time_embedding.cond_proj.weight)
    nothing = ("safety_checker", "feature_extractor")
    pipe = LatentConsistencyModelPipeline(
        vae=backbone.vae, unet=backbone.unet, text_encoder=backbone.text_encoders[0],
        tokenizer=backbone.tokenizers[0], requires_safety_checker=False,
        scheduler=LCMScheduler.from_config(backbone.scheduler_config),
        **dict.fromkeys(nothing),
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        "x", num_inference_steps=steps, guidance_scale=8.5, original_inference_steps=50,
        output_type="pt", generator=torch.Generator().manual_seed(3),
    ).images[0]  # fmt: skip
    # the sampler is the base's own
    made = generate(backbone, "x", cfg=8.5, steps=steps, seed=3, output="tensor")[0]
    assert (made - expected.float()).abs().max() < 1e-3


# ---------------------------------------------------------------- what a file is made for


@pytest.mark.parametrize(
    ("name", "made_for"),
    [
        ("lcm-lora-sdv1-5", "scheduler lcm, steps 2 to 8, cfg 1 to 2"),
        ("LCM_LoRA_Weights_SD15", "scheduler lcm, steps 2 to 8, cfg 1 to 2"),
        ("tcd-sd15-lora", "scheduler tcd, steps 2 to 8, cfg 1"),
        ("Hyper-SD15-1step-lora", "scheduler tcd, steps 1 to 8, cfg 1, eta 1"),
        ("Hyper-SDXL-2steps-lora", "scheduler ddim_trailing, steps 2, cfg 1"),
        ("Hyper-SD15-12steps-CFG-lora", "scheduler ddim_trailing, steps 12, cfg 5 to 8"),
        ("sdxl_lightning_8step_lora", "scheduler euler_trailing, steps 8, cfg 1"),
        ("sd_xl_turbo_lora_v1-64dim", "scheduler euler_a_trailing, steps 1 to 4, cfg 1"),
        ("dmd2_sdxl_4step_lora_fp16", "scheduler lcm, steps 4, cfg 1"),
        ("lightning-strikes-v2", None),
        ("hyperrealism", None),
        ("turbo-cars", None),
        ("falcme", None),
    ],
)
def test_published_loras_of_few_steps_are_known_by_their_names(tmp_path, name, made_for):
    tiny = {f"unet.mid.lora_{x}.weight": torch.ones(2, 2) for x in "AB"}
    save_file(tiny, lora(tmp_path, name))
    hub = tmp_path / f"models--owner--{name}" / "snapshots" / "ab12"
    hub.mkdir(parents=True)
    save_file(tiny, hub / FILE)
    save_file(tiny, tmp_path / "mine.safetensors", metadata={"ss_output_name": name})
    for path in (lora(tmp_path, name), hub, tmp_path / "mine.safetensors"):
        few = read_lora(path).few_steps
        assert (few and few.words()) == made_for, path
        assert few is None or few.guessed


def test_a_header_names_what_a_lora_of_few_steps_is_made_for(tmp_path):
    tiny = {f"unet.mid.lora_{x}.weight": torch.ones(2, 2) for x in "AB"}
    save_file(tiny, lora(tmp_path, "tcd"), metadata=LCM.header())  # the header wins over the name
    few = read_lora(lora(tmp_path, "tcd")).few_steps
    assert few.words() == LCM.words() and not few.guessed
    for text in ("[", "{}", '{"name": 1}', LCM.header()[HEADER].replace("8", '"8"')):
        save_file(tiny, lora(tmp_path, "broken"), metadata={HEADER: text})
        with pytest.raises(UserError, match=r"header's zeroconv\.few_steps cannot be read"):
            read_lora(lora(tmp_path, "broken"))


def test_a_guessed_lora_of_few_steps_is_told_once_and_only_where_it_is_merged(files):
    name = lora(files, "lcm-lora-sdv1-5")
    with pytest.warns(UserWarning, match="taken for LCM-LoRA by its name") as notes:
        backbone = load_backbone(files / "sd", lora=name)
    assert len(notes) == 1 and backbone.defaults.cfg == 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert load_backbone(files / "sd", lora=f"{name}=unet:0").few_steps is None
        assert load_backbone(files / "sd").defaults.cfg == 7.5
    both = [name, lora(files, "TCD-SD15-LoRA")]
    with pytest.warns(UserWarning, match="two LoRAs for few steps are merged"):
        assert load_backbone(files / "sd", lora=both).few_steps.scheduler == "lcm"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"steps": 4}, None),
        ({"steps": 4, "scheduler": "LCM", "cfg": 2.0}, None),
        ({}, "what is asked for has 20 steps"),
        ({"steps": 2, "scheduler": "unipc"}, "has unipc"),
        ({"steps": 2, "scheduler": "euler", "schedule": "karras"}, "has euler with the schedule"),
        ({"steps": 4, "cfg": 7.5}, "has cfg 7.5"),
    ],
)
def test_settings_that_a_lora_of_few_steps_is_not_made_for_are_noted(asked, words):
    backbone = type("Base", (), {"few_steps": LCM, "name": "sd"})
    values = {"scheduler": None, "schedule": None, "steps": 20, "cfg": 1.0} | asked
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        note_few_steps(backbone, **values)
    assert [words in str(note.message) for note in notes] == ([True] if words else [])


def test_an_object_and_an_eta_are_compared_with_what_a_lora_of_few_steps_is_made_for():
    from diffusers import EulerDiscreteScheduler

    backbone = type("Base", (), {"few_steps": _of_name("sdxl_lightning_4step"), "name": "xl"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        note_few_steps(backbone, EulerDiscreteScheduler(timestep_spacing="trailing"), None, 4, 1.0)
        note_few_steps(backbone, "euler", "sgm_uniform", 4, 1.0)
    with pytest.warns(UserWarning, match="has EulerDiscreteScheduler"):
        note_few_steps(backbone, EulerDiscreteScheduler(), None, 4, 1.0)
    backbone.few_steps = _of_name("Hyper-SD15-1step-lora")
    with pytest.warns(UserWarning, match="has its usual eta"):
        note_few_steps(backbone, None, None, 1, 1.0)
