"""A picture of a tiny diffusion transformer, made by zeroconv and by diffusers' own pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tests.helpers import tiny_flow
from zeroconv.backbones import load_backbone
from zeroconv.control.families import control_class
from zeroconv.generation import Control, generate

HEIGHT, WIDTH, SEED = 32, 48, 5
PROMPT, NEGATIVE = "a red ball on a floor", "two green cubes"


def picture(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def mask() -> Image.Image:
    grey = np.zeros((HEIGHT, WIDTH), np.uint8)
    grey[8:24, 12:40] = 255
    return Image.fromarray(grey)


def hole(source: Image.Image) -> Image.Image:
    """The hint of an inpaint control: the picture, transparent where the mask is white."""
    shown = source.convert("RGBA")
    shown.putalpha(mask().point(lambda value: 255 - value))
    return shown


@contextmanager
def means() -> Iterator[None]:
    """Within, diffusers takes the mean of a VAE's posterior, so the noise is the first number that
    is drawn.
    """
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution as Posterior

    plain = Posterior.sample
    Posterior.sample = lambda self, generator=None: self.mode()  # type: ignore
    try:
        yield
    finally:
        Posterior.sample = plain  # type: ignore


class Pair:
    """A base of one family, as both sides load it from one folder."""

    def __init__(self, name: str, folder: Path, **changes: Any) -> None:
        self.name, self.folder = name, tiny_flow.WRITERS[name](folder, **changes)
        self.backbone: Any = load_backbone(str(self.folder))

    def ours(self, controls: list[Control], steps: int, **more: Any) -> Tensor:
        shape = (1, tiny_flow.CHANNELS, HEIGHT // tiny_flow.SCALE, WIDTH // tiny_flow.SCALE)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(SEED))
        asked: dict[str, Any] = {"steps": steps, "latents": noise, "output": "tensor"}
        # its tokenizer is the playroom's, whose defaults are others
        asked |= {"guidance": "both", "cfg": 1.0}
        if "image" in more:
            asked |= {"paste_back": False}
        else:
            asked |= {"height": HEIGHT, "width": WIDTH}
        return generate(self.backbone, PROMPT, controls, **{**asked, **more})[0]

    def theirs(self, kind: str, steps: int, controlnet: Any = None, **more: Any) -> Tensor:
        """By the pipeline of that class of diffusers."""
        import diffusers

        pipeline = getattr(diffusers, kind)(
            **self.parts(), **({} if controlnet is None else {"controlnet": controlnet})
        )
        pipeline.set_progress_bar_config(disable=True)
        asked: dict[str, Any] = {"num_inference_steps": steps, "output_type": "pt"}
        asked |= {"generator": torch.Generator().manual_seed(SEED), "prompt": PROMPT}
        if self.name in ("flux", "chroma", "sd3"):
            asked["max_sequence_length"] = 16  # as its tokenizer says
        asked |= {"height": HEIGHT, "width": WIDTH}
        with means(), torch.no_grad():
            return pipeline(**{**asked, **more}).images[0].float()

    def parts(self) -> dict[str, Any]:
        """diffusers' and transformers' own modules, read from the folder."""
        import diffusers
        import transformers

        folder, backbone = self.folder, self.backbone
        transformer = type(backbone.transformer).from_pretrained(folder / "transformer")
        vae = type(backbone.vae).from_pretrained(folder / "vae")
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
        parts = {"transformer": transformer, "vae": vae, "scheduler": scheduler}
        kinds: dict[str, tuple[Any, ...]] = {
            "flux": (transformers.CLIPTextModel, transformers.T5EncoderModel),
            "chroma": (transformers.T5EncoderModel,),
            "sd3": (*[transformers.CLIPTextModelWithProjection] * 2, transformers.T5EncoderModel),
            "qwen": (transformers.Qwen2_5_VLForConditionalGeneration,),
            "zimage": (transformers.Qwen3Model,),
        }
        for number, kind in enumerate(kinds[self.name]):
            end = "" if not number else f"_{number + 1}"
            parts[f"text_encoder{end}"] = kind.from_pretrained(folder / f"text_encoder{end}")
            read = transformers.AutoTokenizer
            if kind.__name__.startswith("CLIP"):
                read = transformers.CLIPTokenizer
            parts[f"tokenizer{end}"] = read.from_pretrained(folder / f"tokenizer{end}")
        return parts

    def net(self, network: Any) -> Any:
        """Our control around a copy of diffusers' network."""
        import copy

        return control_class(self.backbone)(copy.deepcopy(network), self.backbone)


Case = Callable[[Pair, int], tuple[Tensor, Tensor]]


def flux_one(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    network = tiny_flow.flux_control(2, 3)
    ours = pair.ours([Control(pair.net(network), picture(1), scale=0.7)], steps)
    theirs = pair.theirs(
        "FluxControlNetPipeline", steps, network, control_image=picture(1),
        controlnet_conditioning_scale=0.7,
    )  # fmt: skip
    return ours, theirs


def flux_guided(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    """Of a base without a guidance embedding: true guidance, both halves controlled."""
    network = tiny_flow.flux_control(3, 0)
    ours = pair.ours([Control(pair.net(network), picture(1))], steps, cfg=2.5, negative=NEGATIVE)
    theirs = pair.theirs(
        "FluxControlNetPipeline", steps, network, control_image=picture(1), true_cfg_scale=2.5,
        negative_prompt=NEGATIVE,
    )  # fmt: skip
    return ours, theirs


def flux_two(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    from diffusers import FluxMultiControlNetModel

    networks = [tiny_flow.flux_control(2, 3, seed=n) for n in (1, 2)]
    controls = [
        Control(pair.net(network), picture(n), scale=scale)
        for n, (network, scale) in enumerate(zip(networks, (1.0, 0.5), strict=True))
    ]
    theirs = pair.theirs(
        "FluxControlNetPipeline", steps, FluxMultiControlNetModel(networks),
        control_image=[picture(0), picture(1)], controlnet_conditioning_scale=[1.0, 0.5],
        control_mode=[0, 0],
    )  # fmt: skip
    return pair.ours(controls, steps), theirs


def both_hints() -> dict[str, Any]:
    """Without it diffusers reads as many hints of a union as it has networks, which is one."""
    return {"control_guidance_start": [0.0, 0.0], "control_guidance_end": [1.0, 1.0]}


def flux_union(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    """Two hints of one union control, in two modes."""
    from diffusers import FluxMultiControlNetModel

    network = tiny_flow.flux_control(2, 2, num_mode=7)
    net = pair.net(network)
    hints = [torch.from_numpy(np.asarray(picture(n)) / 255).permute(2, 0, 1) for n in (0, 1)]
    kinds = zip(hints, ("canny", "depth"), strict=True)
    controls = [Control(net, hint.float(), kind=kind) for hint, kind in kinds]
    theirs = pair.theirs(
        "FluxControlNetPipeline", steps, FluxMultiControlNetModel([network]),
        control_image=[picture(0), picture(1)], controlnet_conditioning_scale=[1.0, 1.0],
        control_mode=[0, 2], **both_hints(),
    )  # fmt: skip
    return pair.ours(controls, steps), theirs


def flux_image(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    network = tiny_flow.flux_control(2, 0)
    ours = pair.ours(
        [Control(pair.net(network), picture(1))], steps, image=picture(3), strength=0.75
    )
    theirs = pair.theirs(
        "FluxControlNetImg2ImgPipeline", steps, network, control_image=picture(1),
        image=picture(3), strength=0.75, controlnet_conditioning_scale=1.0,
    )  # fmt: skip
    return ours, theirs


def flux_inpaint(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    network = tiny_flow.flux_control(2, 0)
    ours = pair.ours(
        [Control(pair.net(network), picture(1))], steps, image=picture(3), mask=mask(),
        strength=0.75,
    )  # fmt: skip
    theirs = pair.theirs(
        "FluxControlNetInpaintPipeline", steps, network, control_image=picture(1),
        image=picture(3), mask_image=mask(), strength=0.75, controlnet_conditioning_scale=1.0,
    )  # fmt: skip
    return ours, theirs


def flux_xlabs(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    """A control that reads pixels through convolutions."""
    network = tiny_flow.flux_control(2, 0, conditioning_embedding_channels=4 * tiny_flow.CHANNELS)
    ours = pair.ours([Control(pair.net(network), picture(1))], steps)
    theirs = pair.theirs("FluxControlNetPipeline", steps, network, control_image=picture(1))
    return ours, theirs


def chroma_plain(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    """Guided by another prompt; diffusers has no pipeline of a controlled Chroma."""
    ours = pair.ours([], steps, cfg=3.0, negative=NEGATIVE)
    return ours, pair.theirs("ChromaPipeline", steps, guidance_scale=3.0, negative_prompt=NEGATIVE)


def chroma_image(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    asked: dict[str, Any] = {"image": picture(3), "strength": 0.75}
    ours = pair.ours([], steps, cfg=1.0, **asked)
    return ours, pair.theirs("ChromaImg2ImgPipeline", steps, guidance_scale=0.0, **asked)


def one_guided(
    pair: Pair, steps: int, network: Any, kind: str, theirs: Any = None, **guidance: float
) -> tuple[Tensor, Tensor]:
    """One control at scale 0.7, guided by another prompt at 3. guidance: the same in diffusers'
    words. theirs: the network as diffusers' pipeline takes it.
    """
    control = Control(pair.net(network), picture(1), scale=0.7)
    made = pair.theirs(
        kind, steps, network if theirs is None else theirs, control_image=picture(1),
        controlnet_conditioning_scale=0.7, negative_prompt=NEGATIVE, **guidance,
    )  # fmt: skip
    return pair.ours([control], steps, cfg=3.0, negative=NEGATIVE), made


def sd3_one(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    kind = "StableDiffusion3ControlNetPipeline"
    return one_guided(pair, steps, tiny_flow.sd3_control(2), kind, guidance_scale=3.0)


def sd3_two(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    from diffusers import SD3MultiControlNetModel

    networks = [tiny_flow.sd3_control(2, seed=n) for n in (1, 2)]
    controls = [
        Control(pair.net(network), picture(n), scale=scale)
        for n, (network, scale) in enumerate(zip(networks, (1.0, 0.5), strict=True))
    ]
    theirs = pair.theirs(
        "StableDiffusion3ControlNetPipeline", steps, SD3MultiControlNetModel(networks),
        control_image=[picture(0), picture(1)], controlnet_conditioning_scale=[1.0, 0.5],
        guidance_scale=3.0,
    )  # fmt: skip
    return pair.ours(controls, steps, cfg=3.0), theirs


def sd3_image(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    ours = pair.ours([], steps, image=picture(3), strength=0.75, cfg=3.0)
    theirs = pair.theirs(
        "StableDiffusion3Img2ImgPipeline", steps, image=picture(3), strength=0.75,
        guidance_scale=3.0,
    )  # fmt: skip
    return ours, theirs


def sd3_inpaint(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    asked: dict[str, Any] = {"image": picture(3), "strength": 0.75}
    ours = pair.ours([], steps, mask=mask(), cfg=3.0, **asked)
    latents = pair.theirs(
        "StableDiffusion3InpaintPipeline", steps, mask_image=mask(), guidance_scale=3.0,
        output_type="latent", **asked,
    )  # fmt: skip
    # decoded here: this pipeline of diffusers 0.42 decodes without the VAE's shift
    return ours, pair.backbone.decode_latents(latents[None])[0]


def sd3_inpaint_control(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    network = tiny_flow.sd3_control(2, extra_conditioning_channels=1)
    ours = pair.ours([Control(pair.net(network), hole(picture(3)))], steps, cfg=3.0)
    theirs = pair.theirs(
        "StableDiffusion3ControlNetInpaintingPipeline", steps, network, control_image=picture(3),
        control_mask=mask(), guidance_scale=3.0,
    )  # fmt: skip
    return ours, theirs


def qwen_one(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    kind = "QwenImageControlNetPipeline"
    return one_guided(pair, steps, tiny_flow.qwen_control(2), kind, true_cfg_scale=3.0)


def qwen_union(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    """Two hints of one control: it is called once for each."""
    from diffusers import QwenImageMultiControlNetModel

    network = tiny_flow.qwen_control(2)
    net = pair.net(network)
    controls = [Control(net, picture(0)), Control(net, picture(1), scale=0.5)]
    theirs = pair.theirs(
        "QwenImageControlNetPipeline", steps, QwenImageMultiControlNetModel([network]),
        control_image=[picture(0), picture(1)], controlnet_conditioning_scale=[1.0, 0.5],
        true_cfg_scale=1.0, **both_hints(),
    )  # fmt: skip
    return pair.ours(controls, steps, cfg=1.0), theirs


def qwen_image(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    asked: dict[str, Any] = {"image": picture(3), "strength": 0.75}
    ours = pair.ours([], steps, cfg=1.0, **asked)
    return ours, pair.theirs("QwenImageImg2ImgPipeline", steps, true_cfg_scale=1.0, **asked)


def qwen_inpaint(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    asked: dict[str, Any] = {"image": picture(3), "strength": 0.75}
    ours = pair.ours([], steps, cfg=1.0, mask=mask(), **asked)
    theirs = pair.theirs(
        "QwenImageInpaintPipeline", steps, true_cfg_scale=1.0, mask_image=mask(), **asked
    )
    return ours, theirs


def qwen_inpaint_control(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    network = tiny_flow.qwen_control(2, extra_condition_channels=4)
    ours = pair.ours([Control(pair.net(network), hole(picture(3)))], steps, cfg=1.0)
    theirs = pair.theirs(
        "QwenImageControlNetInpaintPipeline", steps, network, control_image=picture(3),
        control_mask=mask(), true_cfg_scale=1.0,
    )  # fmt: skip
    return ours, theirs


def _zimage(network: Any, pair: Pair) -> Any:
    from diffusers import ZImageControlNetModel

    base = type(pair.backbone.transformer).from_pretrained(pair.folder / "transformer")
    return ZImageControlNetModel.from_transformer(network, base)


def zimage_one(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    network, kind = tiny_flow.zimage_control(), "ZImageControlNetPipeline"
    theirs = _zimage(network, pair)
    return one_guided(pair, steps, network, kind, theirs, guidance_scale=2.0)


def zimage_turbo(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    """A control that shares its layers with the noise refiner, without guidance."""
    network = tiny_flow.zimage_control(add_control_noise_refiner="control_layers")
    ours = pair.ours([Control(pair.net(network), picture(1))], steps, cfg=1.0)
    theirs = pair.theirs(
        "ZImageControlNetPipeline", steps, _zimage(network, pair), control_image=picture(1),
        controlnet_conditioning_scale=1.0, guidance_scale=0.0,
    )  # fmt: skip
    return ours, theirs


def zimage_image(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    asked: dict[str, Any] = {"image": picture(3), "strength": 0.75}
    ours = pair.ours([], steps, cfg=1.0, **asked)
    return ours, pair.theirs("ZImageImg2ImgPipeline", steps, guidance_scale=0.0, **asked)


def zimage_inpaint(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    asked: dict[str, Any] = {"image": picture(3), "strength": 0.75}
    ours = pair.ours([], steps, cfg=1.0, mask=mask(), **asked)
    theirs = pair.theirs(
        "ZImageInpaintPipeline", steps, guidance_scale=0.0, mask_image=mask(), **asked
    )
    return ours, theirs


def zimage_inpaint_control(pair: Pair, steps: int) -> tuple[Tensor, Tensor]:
    """It reads hint, mask and masked picture; nothing is put back."""
    channels = 2 * tiny_flow.CHANNELS + 1
    network = tiny_flow.zimage_control(
        control_in_dim=channels, add_control_noise_refiner="control_noise_refiner"
    )
    net = pair.net(network)
    shown, source = (np.asarray(picture(n)).transpose(2, 0, 1) / 255 for n in (1, 3))
    both = torch.from_numpy(np.concatenate([shown, source])).float()
    both[3:, np.asarray(mask()) > 0] = -1
    ours = pair.ours([Control(net, both)], steps, cfg=1.0)
    theirs = pair.theirs(
        "ZImageControlNetInpaintPipeline", steps, _zimage(network, pair), image=picture(3),
        mask_image=mask(), control_image=picture(1), controlnet_conditioning_scale=1.0,
        guidance_scale=0.0,
    )  # fmt: skip
    return ours, theirs


CASES: dict[str, dict[str, Case]] = {
    "sd3": {
        "one control, guided": sd3_one,
        "two controls": sd3_two,
        "img2img": sd3_image,
        "inpaint": sd3_inpaint,
        "inpaint control": sd3_inpaint_control,
    },
    "flux": {
        "one control": flux_one,
        "one control, true guidance": flux_guided,
        "two controls": flux_two,
        "union": flux_union,
        "pixels (XLabs)": flux_xlabs,
        "img2img": flux_image,
        "inpaint": flux_inpaint,
    },
    "chroma": {"without control, guided": chroma_plain, "img2img": chroma_image},
    "qwen": {
        "one control, guided": qwen_one,
        "two hints": qwen_union,
        "img2img": qwen_image,
        "inpaint": qwen_inpaint,
        "inpaint control": qwen_inpaint_control,
    },
    "zimage": {
        "one control, guided": zimage_one,
        "layers shared with the refiner": zimage_turbo,
        "img2img": zimage_image,
        "inpaint": zimage_inpaint,
        "inpaint control": zimage_inpaint_control,
    },
}
