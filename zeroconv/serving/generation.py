"""What is asked for in one request for pictures, in our terms, with the pictures decoded.

Every interface translates its body into a `Generation`. `check` bounds it, `shared` says which ones
can be computed in one call, `settings` is the body that asks for the same again.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from dataclasses import dataclass, field, fields
from typing import Any

from PIL import Image

from zeroconv.errors import UserError
from zeroconv.jsonfile import to_json
from zeroconv.serving.catalogue import Catalogue
from zeroconv.serving.settings import Limits

Loras = tuple[tuple[str, float, float], ...]  # names, strengths of UNet and text encoder
LONGEST_POSE = 50_000  # characters of JSON that a row of the history has room for; 20 people
MOST_SEED = 2**53 - 1  # whole numbers that JavaScript holds exactly


@dataclass
class Unit:
    """One control. hint: a finished one, PIL or `pictures.Loaded`; else source: what one is drawn
    from by `condition`, by default the control's own, with `options`; else pose: OpenPose's JSON;
    else the picture that is started from.
    """

    control: str
    hint: Any = None
    source: Image.Image | None = None
    condition: str | None = None
    options: dict[str, float] = field(default_factory=dict)
    pose: Any = None
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    mode: str | None = None
    region: Image.Image | None = None
    resize: str = "stretch"
    kind: str | None = None
    curve: Any = "constant"
    passes: str = "both"
    connection_scales: list[float] | None = None


@dataclass
class Generation:
    """See `zeroconv.generate` for the meaning of each. seed: −1 draws one. None is the base's own.
    loras: names and strengths.
    """

    prompt: str = ""
    negative: str = ""
    base: str | None = None
    steps: int = 20
    cfg: float | None = None
    seed: int = -1
    count: int = 1
    width: int | None = None
    height: int | None = None
    sampler: str = "unipc"
    schedule: str | None = None
    guidance: str | None = None
    clip_skip: int | None = None
    eta: float | None = None
    guidance_rescale: float = 0.0
    noise: str = "cpu"
    fast: str | None = None  # None: as the server was started; `check` makes settings of it
    loras: list[tuple[str, float]] = field(default_factory=list)
    image: Image.Image | None = None
    strength: float | None = None
    mask: Image.Image | None = None
    only_masked: bool = False
    padding: int = 32
    mask_blur: float | None = None
    masked_content: str = "original"
    expand: dict[str, int] | None = None
    hires: float | None = None
    hires_strength: float = 0.7
    hires_steps: int | None = None
    hires_upscaler: str = "latent"
    controls: list[Unit] = field(default_factory=list)
    previews: bool = False
    keep: bool = True  # whether the history lists the pictures
    engine: str = "torch"  # as the server was started, set by `check`
    # of tags in the prompt, set by `check`: names and strengths of the UNet and the text encoder
    tagged: list[tuple[str, float, float]] = field(default_factory=list)

    def check(
        self, catalogue: Catalogue, limits: Limits, fast: str = "off", engine: str = "torch"
    ) -> None:
        """Settle what is random or the default, and raise UserError for what is out of bounds or
        not there. The rest is checked by `generate`. fast: where the request names none. engine:
        the server's.
        """
        self.engine = engine
        self.base = catalogue.base(self.base).name
        self.fast = fast_words(self.fast or fast)
        if self.seed < 0:
            self.seed = secrets.randbelow(2**32)
        if self.seed + self.count > MOST_SEED:
            raise UserError(f"seed {self.seed} is too large; give {MOST_SEED - self.count} at most")
        for name, value, most in (
            ("steps", self.steps, limits.steps),
            ("hires.steps", self.hires_steps or 1, limits.steps),
            ("count", self.count, limits.count),
            ("width", self.width or 1, limits.side),
            ("height", self.height or 1, limits.side),
            ("prompt's length", len(self.prompt), limits.prompt),
            ("negative's length", len(self.negative), limits.prompt),
            ("the number of controls", len(self.controls), limits.controls),
            ("the number of LoRAs", len(self.loras), limits.controls),
        ):
            if value > most:
                raise UserError(f"{name} is {value}; this server allows {most} at most")
        self._check_image()
        self._check_size(limits)
        self._take_tags(catalogue)
        for name, _ in self.loras:
            catalogue.lora(name)
        for unit in self.controls:
            catalogue.control(unit.control)
            if unit.source is not None and unit.condition is not None:
                from zeroconv.conditions import find

                find(unit.condition)

    def _check_image(self) -> None:
        """What is about a given picture needs one."""
        if self.image is not None:
            return
        usual = {f.name: f.default for f in fields(self)}
        about = "strength mask only_masked padding mask_blur masked_content expand"
        for name in about.split():
            if getattr(self, name) != usual[name]:
                raise UserError(f"{name} is about a given picture; send image too")

    def _check_size(self, limits: Limits) -> None:
        """The sides of the picture at its largest: of a given one, with new ground, enlarged."""
        # with only_masked the masked box is generated, at the base's own size
        given = None if self.only_masked else self.image
        width = self.width or (1 if given is None else given.width)
        height = self.height or (1 if given is None else given.height)
        sides = self.expand or {}
        grown = width + sides.get("left", 0) + sides.get("right", 0)
        taller = height + sides.get("top", 0) + sides.get("bottom", 0)
        largest = max(grown, taller) * (self.hires or 1)
        if not math.isfinite(largest) or largest > limits.side:
            raise UserError(
                f"the picture would have {largest:.0f} pixels a side; this server allows "
                f"{limits.side} at most"
            )

    def _take_tags(self, catalogue: Catalogue) -> None:
        """LoRAs that the prompt names by tags, where such were listed at start; `generate` notes
        the others.
        """
        from zeroconv.prompts import loras_of

        tags = [tag for tag in loras_of(self.prompt) if tag.name in catalogue.loras]
        self.tagged = [(tag.name, float(tag.weight), float(tag.text_weight)) for tag in tags]

    def merged(self) -> Loras:
        """All LoRAs, those of tags too, with strengths of the UNet and the text encoder."""
        return (*((name, scale, scale) for name, scale in self.loras), *self.tagged)

    def shared(self) -> tuple:
        """The same for requests that one call can compute: all but prompts, seeds, count, hints."""
        apart = "prompt negative seed count previews keep controls image mask".split()
        plain = [repr(getattr(self, f.name)) for f in fields(self) if f.name not in apart]
        pictures = [picture_key(self.image), picture_key(self.mask)]
        units: list[tuple] = [
            (u.control, u.scale, u.start, u.end, u.mode, u.resize, u.kind, repr(u.curve), u.passes)
            + (repr(u.connection_scales),)
            + (picture_key(u.region), u.hint is u.source is u.pose is None)
            for u in self.controls
        ]
        if self.width is None or self.height is None:  # the first hint's shape decides
            units += [(_shape(u),) for u in self.controls[:1]]
        return (*plain, *pictures, *units)

    @property
    def alone(self) -> bool:
        """Whether pictures depend on what they are computed with: noise of a batch, and latents
        whose change is measured in all of it.
        """
        return self.noise == "batch" or "change=" in (self.fast or "")

    def settings(self) -> dict[str, Any]:
        """The body of /generate that asks for the same; pictures in it are True where there are
        some.
        """
        hires: dict[str, Any] | None = None
        if self.hires is not None:
            hires = {"factor": self.hires, "strength": self.hires_strength}
            hires |= {"steps": self.hires_steps, "upscaler": self.hires_upscaler}
        special = ("controls", "loras", "image", "mask", "previews", "keep", "tagged", "engine")
        plain = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name not in special and not f.name.startswith("hires")
        }
        return {
            **plain,
            "loras": [{"name": name, "scale": scale} for name, scale in self.loras],
            "image": True if self.image is not None else None,
            "mask": True if self.mask is not None else None,
            "hires": hires,
            "controls": [_unit_settings(unit) for unit in self.controls],
        }


def _shape(unit: Unit) -> Any:
    """Of the hint, as far as it decides the size of pictures."""
    given = unit.hint if unit.hint is not None else unit.source
    if given is not None:
        return given.size
    pose = unit.pose[0] if isinstance(unit.pose, list) and unit.pose else unit.pose
    pose = pose if isinstance(pose, dict) else {}
    return str((pose.get("canvas_width"), pose.get("canvas_height")))


def _unit_settings(unit: Unit) -> dict[str, Any]:
    """hint: True, as whatever it was made of, its finished hint is kept; a pose as its JSON, so
    that its joints can be moved again.
    """
    names = "control scale start end mode resize kind curve passes connection_scales".split()
    settings = {name: getattr(unit, name) for name in names}
    bare = unit.hint is None and unit.source is None and unit.pose is None
    pose = unit.pose if len(to_json(unit.pose)) <= LONGEST_POSE else None
    settings["hint"] = True if not bare and pose is None else None
    settings["pose_json"] = pose
    settings["region"] = None if unit.region is None else True
    return settings


def fast_words(fast: str) -> str:
    """A preset or settings as `Fast.words` writes them, since a preset can change later. Raises
    UserError.
    """
    if fast == "off":
        return fast
    from zeroconv.generation.saving import parse_fast

    return parse_fast(fast).words()


def picture_key(picture: Image.Image | None) -> str | None:
    """The same for equal pictures."""
    if picture is None:
        return None
    content = hashlib.sha256(picture.tobytes()).hexdigest()
    return f"{picture.mode} {picture.size} {content}"
