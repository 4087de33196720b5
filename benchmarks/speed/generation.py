"""Time and memory of generation: of the playroom; beside diffusers and OpenVINO; by operator.

python -m benchmarks.speed.generation            the playroom, and rendering
python -m benchmarks.speed.generation --sizes playroom,sd15 [--dtypes float32,bfloat16]
    [--peers "ours, torch;ours, openvino;diffusers;OpenVINO of diffusers"] [--repeats 5] [--profile]
    [--json FILE]

With --sizes, a step with a ControlNet on both halves of guidance and a decode: peers take turns,
each in a process of its own, with random weights; medians and extremes. sd15 is Stable Diffusion
1.5's size at 512 px; peers that do not fit in memory together are measured in groups, ours in each.
With --profile, ours by operator, and the share of the machine's measured peak.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--sizes")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--peers")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.sizes:
        compare(arguments)
    else:
        of_the_playroom()


def compare(arguments: argparse.Namespace) -> None:
    """Beside others, or by operator."""
    from benchmarks.speed import generation_profile, generation_turns

    sizes, dtypes = arguments.sizes.split(","), arguments.dtypes.split(",")
    command = f"python -m benchmarks.speed.generation --sizes {arguments.sizes}"
    repeats = arguments.repeats
    if arguments.profile:
        rows, note = generation_profile.table(sizes, dtypes, repeats)
        columns, command = generation_profile.COLUMNS, f"{command} --profile"
        write_result("generation_profile", columns, rows, command, note, arguments.json)
        return
    names = generation_turns.peers(arguments.peers or ";".join(generation_turns.PEERS))
    rows = generation_turns.table(sizes, dtypes, names, repeats)
    note = f"{os.cpu_count()} cores, {repeats} repeats by turns: medians, and [least, most]."
    write_result("generation", generation_turns.COLUMNS, rows, command, note, arguments.json)
    if "playroom" in sizes:
        made = generation_turns.pictures(["torch", "openvino"], repeats)
        path = arguments.json
        path = None if path is None else path.with_stem(f"{path.stem}_pictures")
        columns = ["a picture with control, 128 px", "s", "[least, most]", "target"]
        write_result("generation_pictures", columns, made, command, note, path)


def of_the_playroom() -> None:
    """The table of docs/results.md, and scenes rendered a second."""
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
