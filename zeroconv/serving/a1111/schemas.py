"""The bodies of A1111's requests: its names and defaults. Unknown fields are ignored."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

LONGEST_NAME = 500  # characters
MOST_UNITS = 32  # of a request, enabled or not

Name = Annotated[str, Field(max_length=LONGEST_NAME)]
Share = Annotated[float, Field(ge=0, le=1)]
Whole = Annotated[int, Field(ge=0, le=1_000_000)]
Picture = str  # base64, bare or as a data URL
# what browsers keep exactly; below 0 is a seed by chance
Seed = Annotated[int, Field(ge=-(2**53), le=2**53)]


class Body(BaseModel):
    """A field that is null has its default, as clients send null for what they do not set."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: entry for name, entry in value.items() if entry is not None}


class Script(Body):
    args: Annotated[list[Any], Field(max_length=MOST_UNITS)] = []


class Generating(Body):
    """What txt2img and img2img have in common."""

    prompt: str = ""
    negative_prompt: str = ""
    styles: Annotated[list[Name], Field(max_length=100)] = []
    seed: Seed = -1
    subseed: Seed = -1
    subseed_strength: float = 0.0
    seed_resize_from_h: int = -1
    seed_resize_from_w: int = -1
    sampler_name: Name | None = None
    sampler_index: Name = "Euler"  # the older name
    scheduler: Name = "Automatic"
    batch_size: Annotated[int, Field(ge=1, le=1000)] = 1
    n_iter: Annotated[int, Field(ge=1, le=1000)] = 1
    steps: Annotated[int, Field(ge=1, le=1000)] = 50
    cfg_scale: Annotated[float, Field(ge=-100, le=100)] = 7.0
    width: Annotated[int, Field(ge=1, le=100_000)] | None = None  # None: the base's own
    height: Annotated[int, Field(ge=1, le=100_000)] | None = None
    restore_faces: bool = False
    tiling: bool = False
    eta: Share | None = None
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_noise: float = 1.0
    denoising_strength: Share = 0.75
    refiner_checkpoint: Name | None = None
    disable_extra_networks: bool = False
    script_name: Name | None = None
    override_settings: dict[str, Any] = {}
    override_settings_restore_afterwards: bool = True
    alwayson_scripts: dict[str, Script] = {}
    send_images: bool = True
    save_images: bool = False


class Txt2Img(Generating):
    enable_hr: bool = False
    firstphase_width: Whole = 0
    firstphase_height: Whole = 0
    hr_scale: Annotated[float, Field(gt=0, le=16)] = 2.0
    hr_upscaler: Name = "Latent"
    hr_second_pass_steps: Annotated[int, Field(ge=0, le=1000)] = 0
    hr_resize_x: Whole = 0
    hr_resize_y: Whole = 0
    hr_checkpoint_name: Name | None = None
    hr_sampler_name: Name | None = None
    hr_scheduler: Name | None = None
    hr_prompt: str = ""
    hr_negative_prompt: str = ""


class Img2Img(Generating):
    init_images: Annotated[list[Picture], Field(max_length=100)] = []
    resize_mode: Annotated[int, Field(ge=0, le=3)] = 0
    image_cfg_scale: float = 1.5
    mask: Picture | None = None
    mask_blur: Annotated[float, Field(ge=0, le=1000)] | None = None
    mask_blur_x: Annotated[float, Field(ge=0, le=1000)] = 4
    mask_blur_y: Annotated[float, Field(ge=0, le=1000)] = 4
    mask_round: bool = True
    inpainting_fill: Annotated[int, Field(ge=0, le=3)] = 0
    inpaint_full_res: bool = True
    inpaint_full_res_padding: Annotated[int, Field(ge=0, le=10_000)] = 0
    inpainting_mask_invert: Annotated[int, Field(ge=0, le=1)] = 0
    initial_noise_multiplier: float = 1.0
    include_init_images: bool = False


class PngInfo(Body):
    image: Picture


class Detect(Body):
    """`controlnet_images` is the name that older clients send."""

    controlnet_module: Name = "none"
    controlnet_input_images: Annotated[list[Picture], Field(max_length=100)] = []
    controlnet_images: Annotated[list[Picture], Field(max_length=100)] = []
    controlnet_processor_res: float = -1
    controlnet_threshold_a: float = -1
    controlnet_threshold_b: float = -1
    controlnet_masks: Annotated[list[Picture | None], Field(max_length=100)] = []
    low_vram: bool = False

    @property
    def pictures(self) -> list[str]:
        return self.controlnet_input_images or self.controlnet_images


class Unit(Body):
    """One ControlNet unit, as it arrives."""

    enabled: bool = False
    module: Name = "none"
    model: Name = "None"
    weight: Annotated[float, Field(ge=0, le=2)] = 1.0
    image: Picture | dict[str, Picture | None] | list[Picture | None] | None = None
    mask: Picture | None = None
    resize_mode: Name | int = "Crop and Resize"
    control_mode: Name | int = "Balanced"
    low_vram: bool = False
    pixel_perfect: bool = False
    processor_res: float = -1
    threshold_a: float = -1
    threshold_b: float = -1
    guidance_start: Share = 0.0
    guidance_end: Share = 1.0
    hr_option: Name = "Both"
    save_detected_map: bool = True
    advanced_weighting: Annotated[list[float], Field(min_length=1, max_length=200)] | None = None
    effective_region_mask: Picture | None = None
    union_control_type: Name = "Unknown"
    ipadapter_input: Any = None

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, value: Any) -> Any:
        """Names of older versions, where the new one is not there too."""
        if not isinstance(value, dict):
            return value
        fields = dict(value)
        for old, new in OLD_NAMES.items():
            if old in fields:
                entry = fields.pop(old)
                if fields.get(new) is None:
                    fields[new] = entry
        for name in ("control_mode", "resize_mode"):
            entry = fields.get(name)
            if isinstance(entry, list) and len(entry) == 1:
                fields[name] = entry[0]
        return fields


OLD_NAMES = {
    "guidance": "guidance_end",
    "lowvram": "low_vram",
    "input_image": "image",
    "mask_image": "mask",
}
