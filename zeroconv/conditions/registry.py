"""One entry a condition: its names, how it is drawn, how it may be resized and mirrored, how two
hints are compared.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy import ndarray

from zeroconv.conditions import colours, edges, maps, pose, scores
from zeroconv.conditions.condition import (
    CLASSES,
    DEPTH,
    HOLE,
    LINES,
    PICTURE,
    Condition,
    first_channel,
)


def _mirror_normals(hint: ndarray) -> ndarray:
    turned = hint[:, ::-1].copy()
    if hint.ndim == 3:  # a grey one, of which all channels are alike, is blank
        turned[..., 0] = 255 - turned[..., 0]
    return turned


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
        opened=LINES,
    ),
    Condition(
        "lines",
        "straight line segments, white on black",
        edges.draw_lines,
        scores.score_edges,
        "lines",
        aliases=("hough", "lsd", "control_v11p_sd15_mlsd", "sd-controlnet-mlsd"),
        opened=LINES,
    ),
    Condition(
        "softedge",
        "edge strength, bright where strong",
        edges.draw_softedge,
        scores.score_soft,
        "area",
        aliases=("control_v11p_sd15_softedge", "sd-controlnet-hed"),
        opened=LINES,
    ),
    Condition(
        "scribble",
        "broad strokes, white on black",
        edges.draw_scribble,
        scores.score_edges,
        "lines",
        aliases=("fake_scribble", "control_v11p_sd15_scribble", "sd-controlnet-scribble"),
        opened=LINES,
    ),
    Condition(
        "pose",
        "human skeletons in OpenPose's colours",
        None,
        scores.score_pose,
        "nearest",
        mirror=pose.mirror_hint,
        channels=3,
        aliases=("control_v11p_sd15_openpose", "sd-controlnet-openpose"),
        source=_EXACT,
        licence=_SEE,
        settings={"body": 1, "hands": 0, "face": 0},
    ),
    Condition(
        "segmentation",
        "a colour a class",
        None,
        partial(scores.score_segmentation, classes=len(maps.PLAYROOM_COLOURS)),
        "nearest",
        decode=maps.hint_to_classes,
        channels=3,
        aliases=("seg", "control_v11p_sd15_seg", "sd-controlnet-seg"),
        source=_EXACT,
        licence=_SEE,
        opened=CLASSES,
    ),
    Condition(
        "depth",
        "inverse depth, near is white",
        None,
        scores.score_depth,
        "area",
        decode=lambda hint: maps.hint_to_depth(first_channel(hint)),
        opened=DEPTH,
        aliases=("control_v11f1p_sd15_depth", "sd-controlnet-depth"),
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
        aliases=("normals", "normalbae", "control_v11p_sd15_normalbae", "sd-controlnet-normal"),
        source=_EXACT,
        licence=_SEE,
    ),
    Condition(
        "lineart",
        "line art, white on black",
        edges.draw_lineart,
        scores.score_soft,
        "area",
        aliases=("cartoon", "control_v11p_sd15_lineart", "control_v11p_sd15s2_lineart_anime"),
        opened=LINES,
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
        opened=PICTURE,
    ),
    Condition(
        "tile",
        "the picture, coarse",
        colours.draw_tile,
        scores.score_pixels,
        "area",
        decode=np.asarray,
        channels=3,
        aliases=("control_v11f1e_sd15_tile",),
        paper=False,
        opened=PICTURE,
    ),
    Condition(
        "inpaint",
        "the picture with a hole",
        colours.draw_inpaint,
        colours.score_outside_hole,
        "nearest",
        decode=np.asarray,
        channels=4,
        aliases=("control_v11p_sd15_inpaint",),
        paper=False,
        opened=HOLE,
    ),
    Condition(
        "recolor",
        "brightness alone",
        colours.draw_recolor,
        scores.score_soft,
        "area",
        aliases=("grayscale", "recolour"),
        paper=False,
        opened=PICTURE,
    ),
    Condition(
        "palette",
        "a grid of mean colours",
        colours.draw_palette,
        scores.score_pixels,
        "nearest",
        decode=np.asarray,
        channels=3,
        aliases=("colour",),
        paper=False,
        opened=PICTURE,
    ),
    Condition(
        "blur",
        "the picture, blurred",
        colours.draw_blur,
        scores.score_pixels,
        "area",
        decode=np.asarray,
        channels=3,
        aliases=("tile_blur",),
        paper=False,
        opened=PICTURE,
    ),
    Condition(
        "invert",
        "the picture with its levels turned round: dark strokes become white ones",
        colours.draw_invert,
        scores.score_pixels,
        "area",
        decode=np.asarray,
        channels=3,
        paper=False,
    ),
    Condition(
        "threshold",
        "white where the picture is bright, black elsewhere",
        colours.draw_threshold,
        scores.score_soft,
        "nearest",
        aliases=("binary",),
        paper=False,
    ),
    Condition(
        "person",
        "white where people are",
        None,
        scores.score_soft,
        "nearest",
        aliases=("person_mask", "people", "selfie"),
        source=_EXACT,
        licence=_SEE,
        paper=False,
    ),
)

CONDITIONS: dict[str, Condition] = {condition.name: condition for condition in _ALL}
PAPER = tuple(condition.name for condition in _ALL if condition.paper)
