"""Time and memory of generation with playroom, and of rendering.

python -m benchmarks.speed.generation
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from benchmarks.common import write_result

CHILD = """
import json, resource, time
began = time.perf_counter()
import zeroconv
from zeroconv import playroom
backbone = zeroconv.load_backbone("playroom")
control = zeroconv.ControlNet.load("playroom-canny", backbone=backbone)
loaded = time.perf_counter()
scene = playroom.render(9_000_000)
controls = [zeroconv.Control(control, zeroconv.conditions.annotate("canny", scene.image))]
times = []
for i in range(4):
    start = time.perf_counter()
    zeroconv.generate(backbone, scene.caption, controls, steps=20, seed=i)
    times.append(time.perf_counter() - start)
plain = time.perf_counter()
zeroconv.generate(backbone, scene.caption, steps=20)
plain = time.perf_counter() - plain
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
controlled = sorted(times[1:])[1]
answer = {"load": loaded - began, "controlled": controlled, "plain": plain, "peak": peak}
print(json.dumps(answer))
"""


def main() -> None:
    from zeroconv import playroom

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD], capture_output=True, text=True, check=True
    )
    values = json.loads(done.stdout.strip().splitlines()[-1])
    rows = [
        ["loading base and control, s", round(values["load"], 2), "≤ 6"],
        [
            "one picture with control, 20 steps, cfg 7.5, s (median of 3)",
            round(values["controlled"], 2),
            "≤ 2",
        ],
        ["one picture without control, s", round(values["plain"], 2), "–"],
        ["peak memory, GiB", round(values["peak"], 2), "≤ 1.5"],
    ]
    for size, target in ((64, "≥ 40"), (128, "≥ 12")):
        seeds = playroom.split_seeds("val", 256)
        began = time.perf_counter()
        playroom.render_many(seeds, size)
        rows.append(
            [
                f"scenes rendered a second at {size} px, all cores",
                round(256 / (time.perf_counter() - began), 1),
                target,
            ]
        )
    write_result(
        "speed",
        ["", "measured", "target"],
        rows,
        "python -m benchmarks.speed.generation",
        "Two CPU cores. Loading is mostly the import of torch, diffusers, transformers and peft.",
    )


if __name__ == "__main__":
    main()
