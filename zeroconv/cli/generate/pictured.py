"""What `zeroconv generate` knows of a picture to start from: the words of its options, and the
pictures opened.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from zeroconv.cli.generate.controls import ControlSpec
from zeroconv.cli.generate.making import BadPicture
from zeroconv.errors import UserError
from zeroconv.pictures import open_mask, open_picture
from zeroconv.words import expand as expand_home

# of the options, what `ImageOptions` takes besides the pictures
SETTINGS = (
    "strength",
    "only_masked",
    "padding",
    "mask_blur",
    "masked_content",
    "expand",
    "image_guidance",
)


def parse_expand(text: str | None) -> dict[str, int] | None:
    """ "left=128,top=64" → pixels a side; one number is for all four. Raises UserError."""
    if text is None:
        return None
    from zeroconv.generation.image.inpaint import SIDES, check_expand

    entries = [entry.partition("=") for entry in text.split(",")]
    if len(entries) == 1 and not entries[0][1]:
        entries = [(side, "=", text) for side in SIDES]
    sides: dict[str, int] = {}
    for side, equals, pixels in entries:
        digits = pixels.strip()
        if not equals or not (digits.isascii() and digits.isdigit()) or len(digits) > 9:
            raise UserError(
                f"--expand {text[:80]!r} is not understood: write pixels a side, "
                "left=128,right=64, or one number for all four"
            )
        if side.strip() in sides:
            raise UserError(f"--expand {text[:80]!r} names {side.strip()} twice; give it once")
        sides[side.strip()] = int(digits)
    check_expand(sides)
    return sides


def masks_of(
    masks: Sequence[Path], regions: Sequence[Path], image: Any, controls: bool
) -> tuple[Path | None, list[Path]]:
    """The picture's mask, and where controls act. Raises UserError.

    Without a picture `--mask` is the old name of `--region`, with a note.
    """
    if image is not None:
        if len(masks) > 1:
            raise UserError(
                "--mask is what is painted anew in the one --image: give it once; where controls "
                "act is --region"
            )
        return (masks[0] if masks else None), list(regions)
    if not masks:
        return None, list(regions)
    if not controls:
        raise UserError(
            "--mask is what is painted anew in a picture, and no --image is given; where a control "
            "acts is --region, and no --control is given either"
        )
    if regions:
        raise UserError("--mask without --image is the old name of --region: give --region alone")
    warnings.warn(
        "--mask without --image is the old name of --region, which works for now; write --region.",
        stacklevel=2,
    )
    return None, list(masks)


def open_given(
    request: Mapping[str, Any], kept: Mapping[str, Image.Image] | None = None
) -> dict[str, Image.Image]:
    """The picture and the mask of a request, decoded; those that another picture brings first.

    Raises BadPicture for what is no picture.
    """
    kept, given = kept or {}, {}
    for name, opened in (("image", open_picture), ("mask", open_mask)):
        if request.get(name) is None:
            continue
        try:
            path = expand_home(str(request[name]))
            given[name] = kept[name] if name in kept else opened(path)
        except UserError as error:
            raise BadPicture(*error.args) from error
    return given


def check_given(request: Mapping[str, Any]) -> None:
    """Raise UserError for options of a picture, or of a second pass, that do not go together."""
    from zeroconv.generation.image.hires import Hires
    from zeroconv.generation.image.options import ImageOptions

    settings = {name: request[name] for name in SETTINGS if name in request}
    options = ImageOptions(request.get("image"), mask=request.get("mask"), **settings)
    names = ("factor", "strength", "steps", "upscaler")
    values = {n: request["hires" if n == "factor" else f"hires_{n}"] for n in names}
    Hires(**values).check(request["steps"], options, ())


class Frame:
    """A given picture, with the ground that --expand adds: the size that is generated from it, and
    what hints of controls show.
    """

    def __init__(
        self, backbone: Any, request: Mapping[str, Any], given: Mapping[str, Image.Image]
    ) -> None:
        """given: what `open_given` opened."""
        from zeroconv.generation.image.given import ImageInputs
        from zeroconv.generation.image.options import ImageOptions

        settings = {name: request[name] for name in SETTINGS if name in request}
        options = ImageOptions(given["image"], mask=given.get("mask"), **settings)
        with warnings.catch_warnings():  # `generate` notes them again
            warnings.simplefilter("ignore")
            inputs = ImageInputs(options, backbone, 1, 1, request["steps"])
            high, wide = inputs.size(request["height"], request["width"])
        self.size = wide, high
        self.picture, self.mask = inputs.different[0].picture, inputs.different[0].mask
        # with only_masked hints show the picture, of which `generate` takes the box
        self.hint_size = self.picture.size if request["only_masked"] else self.size

    def source(self, spec: ControlSpec, picture: Any, condition: str | None) -> Any:
        """What the hint of a control is made of: of `--control NAME` the picture, with the mask as
        the hole of an inpaint control.
        """
        if not spec.of_image or spec.kept is not None:
            return picture
        if condition != "inpaint":
            return self.picture
        if self.mask is None:
            raise UserError("--control inpaint takes the hole from --mask or --expand: give one")
        holed = self.picture.convert("RGBA")
        holed.putalpha(self.mask.point(lambda level: 0 if level >= 128 else 255))
        return holed


def loras_of_prompts(
    prompts: Sequence[str], folders: Sequence[str] | None, plain: bool
) -> list[tuple[str, dict[str, float]]]:
    """The LoRAs that prompts name by tags, to be merged into the base: files and their strengths.

    folders: where they lie, by default `loras` in the current folder, if it is there. Raises
    UserError where a file is missing, and where prompts name different ones.
    """
    from zeroconv.checkpoints.lora import find_lora
    from zeroconv.prompts import loras_of

    usual = [folder for folder in ("loras",) if Path(folder).is_dir()]
    folders = [expand_home(folder) for folder in folders] if folders else usual
    if plain or not folders:
        return []
    tags = [loras_of(prompt) for prompt in prompts]
    if any(one != tags[0] for one in tags):
        raise UserError(
            "the prompts name different LoRAs, which are merged into one base: give prompts with "
            "the same <lora:…> tags in one call"
        )
    return [
        (str(find_lora(tag.name, folders)), {"unet": tag.weight, "text": tag.text_weight})
        for tag in tags[0]
    ]
