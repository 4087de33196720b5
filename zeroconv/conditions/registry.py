"""One entry a condition: its names, how it is drawn, how it may be resized and mirrored, how two hints are compared."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy import ndarray
from PIL import Image

from zeroconv.conditions import colours, edges, maps, pose, scores
from zeroconv.errors import UserError

NO_WEIGHTS = "none needed: no learned weights"


def _plain(hint: ndarray) -> ndarray:
    return hint[:, ::-1]


def _first_channel(hint: ndarray) -> ndarray:
    return hint[..., 0] if hint.ndim == 3 else hint


def _mirror_normals(hint: ndarray) -> ndarray:
    turned = hint[:, ::-1].copy()
    if hint.ndim == 3:  # a grey one, of which all channels are alike, is blank
        turned[..., 0] = 255 - turned[..., 0]
    return turned


@dataclass(frozen=True)
class Condition:
    """What a hint of this kind is.

    draw: picture (H, W, 3) uint8 RGB → hint (H, W), (H, W, 3) or, with a hole, (H, W, 4) uint8; None where pixels
    alone do not tell, and a network (`learned`) or exact ground truth must. decode: hint (H, W, 3) uint8 → what
    `score` compares. score: (truth, read) → named figures of one picture, explained in `scores.METRICS`.
    resize: "lines" keeps one-pixel lines when shrinking, "nearest" invents no new values, "area" averages.
    mirror: the hint of the mirrored picture. channels: 1 grey, 3 RGB, 4 RGB with a hole.
    """

    name: str
    meaning: str
    draw: Callable[..., ndarray] | None
    score: Callable[[Any, Any], dict[str, Any]]
    resize: Literal["lines", "nearest", "area"]
    decode: Callable[[ndarray], Any] = _first_channel
    mirror: Callable[[ndarray], ndarray] | None = _plain
    channels: int = 1
    aliases: tuple[str, ...] = ()
    source: str = ""  # where a hint comes from when `draw` is None
    licence: str = NO_WEIGHTS
    paper: bool = True  # one of the paper's nine

    @property
    def needs_weights(self) -> bool:
        return self.draw is None

    @property
    def defaults(self) -> dict[str, Any]:
        """The parameters of `draw` that a user may set, and their values."""
        if self.draw is None:
            return {}
        found = inspect.signature(self.draw).parameters.values()
        return {p.name: p.default for p in found if isinstance(p.default, int | float)}


_EXACT = "playroom scenes bring it exactly; for photographs see `zeroconv annotate --backend`"
_SEE = "see the backend's own"

_ALL = (
    Condition(
        "canny",
        "edges, white on black",
        edges.draw_canny,
        scores.score_edges,
        "lines",
        aliases=("control_v11p_sd15_canny", "sd-controlnet-canny", "canny_edge"),
    ),
    Condition(
        "lines",
        "straight line segments, white on black",
        edges.draw_lines,
        scores.score_edges,
        "lines",
        aliases=("mlsd", "hough", "lsd", "control_v11p_sd15_mlsd", "sd-controlnet-mlsd"),
    ),
    Condition(
        "softedge",
        "edge strength, bright where strong",
        edges.draw_softedge,
        scores.score_soft,
        "area",
        aliases=(
            "hed",
            "softedge_hed",
            "softedge_hedsafe",
            "softedge_pidinet",
            "softedge_pidisafe",
            "pidinet",
            "control_v11p_sd15_softedge",
            "sd-controlnet-hed",
        ),
    ),
    Condition(
        "scribble",
        "broad strokes, white on black",
        edges.draw_scribble,
        scores.score_edges,
        "lines",
        aliases=(
            "scribble_hed",
            "scribble_pidinet",
            "scribble_xdog",
            "fake_scribble",
            "control_v11p_sd15_scribble",
            "sd-controlnet-scribble",
        ),
    ),
    Condition(
        "pose",
        "human skeletons in OpenPose's colours",
        None,
        scores.score_pose,
        "nearest",
        mirror=pose.mirror_hint,
        channels=3,
        aliases=(
            "openpose",
            "openpose_full",
            "openpose_faceonly",
            "dw_openpose_full",
            "control_v11p_sd15_openpose",
            "sd-controlnet-openpose",
        ),
        source=_EXACT,
        licence=_SEE,
    ),
    Condition(
        "segmentation",
        "a colour a class",
        None,
        partial(scores.score_segmentation, classes=len(maps.PLAYROOM_COLOURS)),
        "nearest",
        decode=maps.hint_to_classes,
        channels=3,
        aliases=("seg", "seg_ofade20k", "seg_ofcoco", "seg_ufade20k", "control_v11p_sd15_seg", "sd-controlnet-seg"),
        source=_EXACT,
        licence=_SEE,
    ),
    Condition(
        "depth",
        "inverse depth, near is white",
        None,
        scores.score_depth,
        "area",
        decode=lambda hint: maps.hint_to_depth(_first_channel(hint)),
        aliases=(
            "control_v11f1p_sd15_depth",
            "sd-controlnet-depth",
            "depth_midas",
            "depth_anything",
            "depth_anything_v2",
            "depth_zoe",
            "depth_leres",
        ),
        source=_EXACT,
        licence=_SEE,
    ),
    Condition(
        "normal",
        "surface normals: red to the left, green up, blue to the viewer",
        None,
        scores.score_normals,
        "nearest",
        decode=maps.hint_to_normal,
        mirror=_mirror_normals,
        channels=3,
        aliases=(
            "normals",
            "normal_bae",
            "normalbae",
            "normal_midas",
            "control_v11p_sd15_normalbae",
            "sd-controlnet-normal",
        ),
        source=_EXACT,
        licence=_SEE,
    ),
    Condition(
        "lineart",
        "line art, white on black",
        edges.draw_lineart,
        scores.score_soft,
        "area",
        aliases=(
            "lineart_standard",
            "lineart_realistic",
            "lineart_coarse",
            "lineart_anime",
            "cartoon",
            "control_v11p_sd15_lineart",
            "control_v11p_sd15s2_lineart_anime",
        ),
    ),
    Condition(
        "shuffle",
        "the picture's colours, its content shuffled",
        colours.draw_shuffle,
        colours.score_colours,
        "area",
        decode=np.asarray,
        channels=3,
        aliases=("control_v11e_sd15_shuffle",),
        paper=False,
    ),
    Condition(
        "tile",
        "the picture, coarse",
        colours.draw_tile,
        scores.score_pixels,
        "area",
        decode=np.asarray,
        channels=3,
        aliases=("tile_resample", "tile_colorfix", "control_v11f1e_sd15_tile"),
        paper=False,
    ),
    Condition(
        "inpaint",
        "the picture with a hole",
        colours.draw_inpaint,
        colours.score_outside_hole,
        "nearest",
        decode=np.asarray,
        channels=4,
        aliases=("inpaint_only", "inpaint_global_harmonious", "control_v11p_sd15_inpaint"),
        paper=False,
    ),
    Condition(
        "recolor",
        "brightness alone",
        colours.draw_recolor,
        scores.score_soft,
        "area",
        aliases=("grayscale", "recolor_luminance", "recolor_intensity", "recolour"),
        paper=False,
    ),
    Condition(
        "palette",
        "a grid of mean colours",
        colours.draw_palette,
        scores.score_pixels,
        "nearest",
        decode=np.asarray,
        channels=3,
        aliases=("color", "t2ia_color_grid", "colour"),
        paper=False,
    ),
    Condition(
        "blur",
        "the picture, blurred",
        colours.draw_blur,
        scores.score_pixels,
        "area",
        decode=np.asarray,
        channels=3,
        aliases=("blur_gaussian", "tile_blur"),
        paper=False,
    ),
)

CONDITIONS: dict[str, Condition] = {condition.name: condition for condition in _ALL}
PAPER = tuple(condition.name for condition in _ALL if condition.paper)


def find(name: str) -> Condition:
    """The condition of a name or alias, upper or lower case. Raises UserError with the nearest name."""
    wanted = name.lower()
    for condition in CONDITIONS.values():
        if wanted == condition.name or wanted in condition.aliases:
            return condition
    close = difflib.get_close_matches(wanted, CONDITIONS, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else "."
    raise UserError(f"There is no condition {name!r}; known: {', '.join(CONDITIONS)}{meant}")


def annotate(name: str, image: Image.Image, **params: Any) -> Image.Image:
    """Draw the hint of a picture: PIL in, RGB PIL of the same size out (RGBA for inpaint, whose hole is transparent).

    Raises UserError for an unknown condition, one that cannot be drawn from pixels, or parameters out of range, and
    TypeError for a parameter that the condition does not have.
    """
    condition = find(name)
    if condition.draw is None:
        raise UserError(f"A {condition.name} hint cannot be drawn from a picture here: {condition.source}.")
    hint = condition.draw(np.asarray(image.convert("RGB")), **params)
    return as_picture(hint)


def as_picture(hint: ndarray) -> Image.Image:
    """A drawn hint (H, W), (H, W, 3) or (H, W, 4) uint8 as PIL: RGB, or RGBA where it has a hole."""
    picture = Image.fromarray(np.ascontiguousarray(hint))
    return picture if picture.mode == "RGBA" else picture.convert("RGB")
