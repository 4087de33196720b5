"""A depth backend against measured disparity: scikit-image's motorcycle.

python -m benchmarks.quality.stereo --backend MODEL

Disparity is inverse depth up to a scale, so ranks must agree. No depth network comes inside a
package: give a folder or hub id, such as depth-anything/Depth-Anything-V2-Small-hf.
"""

from __future__ import annotations

import argparse

import numpy as np
from PIL import Image
from scipy.stats import spearmanr
from skimage import data

from benchmarks.common import PICTURES, sheet
from zeroconv.annotators.hub import depth
from zeroconv.conditions.maps import relative_to_hint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", required=True)
    arguments = parser.parse_args()
    left, _, disparity = data.stereo_motorcycle()
    relative = depth(left, arguments.backend)
    known = np.isfinite(disparity)
    print(
        "rank correlation with the measured disparity: "
        f"{spearmanr(relative[known], disparity[known]).statistic:.3f}"
    )
    truth = relative_to_hint(np.where(known, disparity, disparity[known].min()))
    sheet(
        [
            [
                Image.fromarray(p).resize((480, 320))
                for p in (left, truth, relative_to_hint(relative))
            ]
        ],
        PICTURES / "stereo.jpg",
    )


if __name__ == "__main__":
    main()
