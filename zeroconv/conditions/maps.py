"""Maps as hint pictures, and back: depth, surface normals, classes. 8 bits a channel, one scale for
all pictures.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy import ndarray

from zeroconv.errors import UserError

NEAR, FAR = 2.0, 8.0  # metres: the range of metric depth hints

# wall, floor and person as in ADE20K's colours; ball, cube, cylinder, cone have none there
PLAYROOM_COLOURS = (
    (120, 120, 120),
    (80, 50, 50),
    (255, 61, 6),
    (61, 230, 250),
    (8, 255, 51),
    (255, 6, 224),
    (150, 5, 61),
)


def depth_to_hint(depth: ndarray) -> ndarray:
    """Metres (H, W) → inverse depth uint8, near white: 255 at 2 m, 0 at 8 m, linear in 1/depth."""
    inverse = (1 / np.asarray(depth, np.float64) - 1 / FAR) / (1 / NEAR - 1 / FAR)
    return (np.clip(inverse, 0, 1) * 255 + 0.5).astype(np.uint8)


def hint_to_depth(hint: ndarray) -> ndarray:
    """Inverse of `depth_to_hint`; uint8 (H, W) or float in [0, 1] → metres float64."""
    share = hint.astype(np.float64) / 255 if hint.dtype == np.uint8 else hint.astype(np.float64)
    return 1 / (share * (1 / NEAR - 1 / FAR) + 1 / FAR)


def relative_to_hint(inverse_depth: ndarray) -> ndarray:
    """Inverse depth of unknown scale (H, W), as a monocular network gives it → uint8: its own
    range, near white.
    """
    low, high = float(inverse_depth.min()), float(inverse_depth.max())
    return ((inverse_depth - low) / max(high - low, 1e-9) * 255 + 0.5).astype(np.uint8)


def normal_to_hint(normal: ndarray) -> ndarray:
    """Unit vectors (H, W, 3), x right, y up, z to the viewer → RGB uint8.

    The colours of ControlNet 1.1's normal model: red to the left, green up, blue to the viewer.
    """
    return np.clip((np.asarray(normal) * (-1, 1, 1) + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)


def hint_to_normal(hint: ndarray) -> ndarray:
    """Inverse of `normal_to_hint`, normalised; (H, W, 3) float64."""
    vectors = (hint.astype(np.float64) / 127.5 - 1) * (-1, 1, 1)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def classes_to_hint(classes: ndarray, colours: ndarray | tuple = PLAYROOM_COLOURS) -> ndarray:
    """Class ids (H, W) → RGB uint8. Raises ValueError for an id without a colour."""
    table = np.asarray(colours, np.uint8)
    if classes.size and int(classes.max()) >= len(table):
        raise ValueError(f"Class {int(classes.max())} has no colour; there are {len(table)}.")
    return table[classes]


def hint_to_classes(hint: ndarray, colours: ndarray | tuple = PLAYROOM_COLOURS) -> ndarray:
    """Inverse of `classes_to_hint`; uint8 ids (H, W). Every colour must be exact.

    Raises UserError for colours that are no class: a class map that was stored as JPEG or resized
    smoothly has lost its classes at every border, and to guess them would flatter some picture.
    """
    table = np.asarray(colours, np.int64) @ (65536, 256, 1)
    codes = hint.astype(np.int64) @ (65536, 256, 1)
    order = np.argsort(table)
    nearest = order[np.clip(np.searchsorted(table[order], codes), 0, len(table) - 1)]
    wrong = float((table[nearest] != codes).mean())
    if wrong:
        raise UserError(
            f"{wrong:.1%} of a segmentation hint's pixels have the colour of no class; store class "
            "maps as PNG, and resize them by nearest neighbour."
        )
    return nearest.astype(np.uint8)


NUMBERED = 150  # classes that a map of numbers may name: ADE20K's


def known_colours() -> ndarray:
    """Every colour that stands for a class, (N, 3) uint8: ADE20K's in their order, then the
    playroom's.
    """
    return np.concatenate([ade20k_colours(), np.array(PLAYROOM_COLOURS, np.uint8)])


@lru_cache
def ade20k_colours() -> ndarray:
    """The 150 colours that segmentation hints of published ControlNets use, (150, 3) uint8, in
    ADE20K's order.
    """
    return _colours(_ADE20K)


@lru_cache
def coco_colours() -> ndarray:
    """The 133 colours of COCO's panoptic classes, (133, 3) uint8, 80 things and then 53 kinds of
    stuff: what A1111's seg_ofcoco paints.
    """
    return _colours(_COCO)


def _colours(codes: str) -> ndarray:
    rows = [[int(code[i : i + 2], 16) for i in (0, 2, 4)] for code in codes.split()]
    return np.array(rows, np.uint8)


_ADE20K = """
787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07 e005ff ebff07 96053d 787846
08ff33 ff0652 8fff8c ccff04 ff3307 cc4603 0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0 0907e6 dcdcdc
ff095c 7009ff 08ffd6 07ffe0 ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06 ffc207 ff7a08 00ff14
ff0829 ff0599 0633ff eb0cff a09614 00a3ff 8c8c8c fa0a0f 14ff00 1fff00 ff1f00 ffe000 99ff00 0000ff
ff4700 00ebff 00adff 1f00ff 0bc8c8 ff5200 00fff5 003dff 00ff70 00ff85 ff0000 ffa300 ff6600 c2ff00
008fff 33ff00 0052ff 00ff29 00ffad 0a00ff adff00 00ff99 ff5c00 ff00ff ff00f5 ff0066 ffad00 ff0014
ffb8b8 001fff 00ff3d 0047ff ff00cc 00ffc2 00ff52 000aff 0070ff 3300ff 00c2ff 007aff 00ffa3 ff9900
00ff0a ff7000 8fff00 5200ff a3ff00 ffeb00 08b8aa 8500ff 00ff5c b800ff ff001f 00b8ff 00d6ff ff0070
5cff00 00e0ff 70e0ff 46b8a0 a300ff 9900ff 47ff00 ff00a3 ffcc00 ff008f 00ffeb 85ff00 ff00eb f500ff
ff007a fff500 0abed4 d6ff00 00ccff 1400ff ffff00 0099ff 0029ff 00ffcc 2900ff 29ff00 ad00ff 00f5ff
4700ff 7a00ff 00ffb8 005cff b8ff00 0085ff ffd600 19c2c2 66ff00 5c00ff
"""

_COCO = """
dc143c 770b20 00008e 0000e6 6a00e4 003c64 005064 000046 0000c0 faaa1e 64aa1e dcdc00 af74af fa001e
a52a2a ff4dff 00e2fc b6b6ff 005200 78a69d 6e4c00 ae39ff c76400 480076 ffb3f0 007d5c d10097 bcd0b6
00dcb0 ff63a4 5c0049 8581ff 4eb4ff 00e400 aefff3 2d59ff 868667 9194ae ffd0ba c5e2ff ab8601 6d3f36
cf8aff 97005f 09503d 546933 4a4169 a6c466 d0c3d2 ff6d41 008f95 b300c2 d1636a 057900 e3ffcd 93bad0
994501 035fa1 a3ff00 7700aa 00b6c7 00a578 b78258 5f2000 827287 6e8185 a64a76 db8eb9 4fd272 b25a3e
41460f 7fa773 3b696a 8e6c2d c4ac00 5f3650 804cff c93901 f6007a bfa2d0 ffff80 93d3cb 966464 a8abac
9270c6 d2aa64 5c8859 da58b8 f18100 d911ff 7c4ab5 464646 ffe4ff 9ad000 c1005c 4c5b71 ffb4c3 6a9ab0
e6968c 3c8fff 804080 5c5237 fed47c 494dae ffa062 ffffff 68546d a9a483 e1c7ff 89364a 879edf 07f6e7
6bffc8 3a2995 b7798e ff4961 6b8e23 be9999 928b8d 4682b4 86c79c d1e28c 60246c 606060 40aa40 98fb98
d0e5e4 cebaab 98a140 747000 00728f 66669c fa8dff
"""
