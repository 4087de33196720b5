"""ComfyUI's graph: read along the links of its sampler; damaged and circular ones end."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroconv.errors import UserError
from zeroconv.generation.metadata.comfyui import read_prompt


def graph() -> dict[str, Any]:
    """As ComfyUI saves it: text to picture with a LoRA and a control."""

    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    return {
        "3": node(
            "KSampler", seed=["20", 0], steps=20, cfg=8.0, sampler_name="dpmpp_2m",
            scheduler="karras", denoise=1.0, model=["10", 0], positive=["11", 0],
            negative=["7", 0], latent_image=["5", 0],
        ),
        "4": node("CheckpointLoaderSimple", ckpt_name="v1-5.safetensors"),
        "5": node("EmptyLatentImage", width=512, height=640, batch_size=1),
        "6": node("CLIPTextEncode", text="a red ball", clip=["4", 1]),
        "7": node("CLIPTextEncode", text="blur", clip=["4", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", images=["8", 0]),
        "10": node("LoraLoader", lora_name="s.safetensors", strength_model=0.7, model=["4", 0]),
        "11": node("ControlNetApply", conditioning=["6", 0], control_net=["12", 0], strength=0.9),
        "12": node("ControlNetLoader", control_net_name="canny.pth"),
        "13": node("FaceDetailer"),
        "20": node("PrimitiveInt", value=77),
    }  # fmt: skip


def test_comfyui_graph_is_read_and_what_is_not_is_said() -> None:
    reading = read_prompt(json.dumps(graph()))
    assert reading.values == {
        "noise": "batch", "steps": 20, "seed": 77, "cfg": 8.0, "scheduler": "dpm++2m",
        "schedule": "karras", "prompt": ["a red ball"], "negative": "blur", "width": 512,
        "height": 640,
    }  # fmt: skip
    notes = "; ".join(reading.notes)
    for part in ("v1-5.safetensors", "s.safetensors", ":0.7", "canny.pth", "FaceDetailer"):
        assert part in notes
    assert "SaveImage" not in notes


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"seed": 2**60}, "out of range"),
        ({"denoise": 0.5}, "denoise 0.5"),
        ({"sampler_name": "uni_pc_bh9"}, "sampler is not taken"),
        ({"latent_image": ["8", 0]}, "VAEDecode"),
        ({"positive": ["3", 0]}, "prompt is not read"),  # a circle
        ({"cfg": "7"}, "cfg 7 is no number"),
        ({"cfg": True}, "cfg True is no number"),
        ({"cfg": float("nan")}, "cfg cannot be read"),
        ({"seed": ["99", 0], "steps": None}, "its seed, steps cannot be read"),
        ({"denoise": "0.5"}, "denoise 0.5 is not taken"),
        ({"start_at_step": 4, "end_at_step": 9}, "start_at_step 4, end_at_step 9 is not taken"),
        ({"add_noise": "disable"}, "add_noise disable"),
    ],
)
def test_comfyui_notes_what_it_cannot_take(change: dict[str, Any], note: str) -> None:
    nodes = graph()
    nodes["3"]["inputs"] |= change
    assert note in "; ".join(read_prompt(json.dumps(nodes)).notes)


@pytest.mark.parametrize(
    ("kind", "inputs", "entry", "note"),
    [
        ("FreeU", {"model": ["10", 0]}, "model", "FreeU"),
        ("ConditioningSetArea", {"conditioning": ["6", 0]}, "positive", "ConditioningSetArea"),
        ("ConditioningZeroOut", {"conditioning": ["7", 0]}, "negative", "ConditioningZeroOut"),
        ("CLIPTextEncodeSDXL", {"text_g": "x", "text_l": "y"}, "positive", "text_l of its prompt"),
        ("CLIPTextEncodeSDXL", {"text_g": "x", "crop_w": 8}, "positive", "crop of 0 and 8"),
        ("EmptyLatentImage", {"width": "64", "height": 64}, "latent_image", "size 64×64"),
    ],
)
def test_comfyui_notes_nodes_whose_effect_is_not_taken(
    kind: str, inputs: dict[str, Any], entry: str, note: str
) -> None:
    nodes = graph()
    nodes["30"] = {"class_type": kind, "inputs": inputs}
    nodes["3"]["inputs"][entry] = ["30", 0]
    assert note in "; ".join(read_prompt(json.dumps(nodes)).notes)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"1": 2}', "{" * 5000, '{"1": {}}'])
def test_comfyui_refuses_what_is_no_graph(text: str) -> None:
    with pytest.raises(UserError, match="ComfyUI's graph"):
        read_prompt(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
LINKS = st.tuples(st.sampled_from(list(graph())), st.integers(0, 2)).map(list)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_comfyui_graphs_of_any_kind_are_read_or_refused(data: st.DataObject) -> None:
    nodes = graph()
    for key in data.draw(st.lists(st.sampled_from(list(nodes)), max_size=4)):
        names = st.sampled_from([*nodes[key]["inputs"], "x"])
        nodes[key]["inputs"][data.draw(names)] = data.draw(VALUES | LINKS)
    with suppress(UserError):  # and nothing else
        read_prompt(json.dumps(nodes))
