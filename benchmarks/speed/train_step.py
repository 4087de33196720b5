"""A training step of ours beside one of diffusers' own train_controlnet.py: time and memory.
With --model flux, beside one of its train_controlnet_flux.py.

python -m benchmarks.speed.train_step [--model sd15] [--precision fp32,bf16] [--size 256] [--batch
2]
                                      [--repeats 5] [--device auto] [--no-ladder] [--json FILE]
python -m benchmarks.speed.train_step --from-log FILE --batch N   a table of what a stopped run
printed

Random weights of full size, the same ones on both sides. The two take turns in one run, a step
each, every one in a process of its own; medians and extremes of the repeats. Before that both
compute the loss of the same latents, noise and timesteps. After it, more processes do without parts
of ours, to tell what each is worth.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import write_result
from benchmarks.speed.step_shared import DTYPES
from tools.reports import ROOT, write_json

# what is added to ours one after another: (how much of it, see
# `benchmarks.speed.step_workers.Ours`, its name)
RUNGS = {
    "fp32": (
        (0, "everything cached, no graph of the encoder"),
        (1, "memory kept"),
        (2, "CPU layers"),
        (3, "8-bit AdamW"),
    ),
    "bf16": (
        (0, "everything cached, no graph of the encoder"),
        (1, "memory kept"),
        (3, "bf16 weights without autocast, CPU layers, 8-bit AdamW"),
    ),
}
FLUX_RUNGS = (
    (0, "everything cached, memory kept"),
    (1, "CPU layers"),
    (2, "blocks that do less"),
    (3, "bf16 weights, frozen base in bf16, 8-bit AdamW"),
)
CARD_RUNGS = {
    "fp32": (
        (0, "everything cached, no graph of the encoder"),
        (1, "CUDA graphs"),
        (3, "8-bit AdamW"),
    ),
    "bf16": (
        (0, "everything cached, no graph of the encoder"),
        (1, "CUDA graphs"),
        (2, "bf16 weights without autocast, 8-bit AdamW in one kernel"),
        (3, "norms and SiLU in kernels of ours"),
    ),
}
WARM = {"cpu": 1, "cuda": 3}  # steps before the clock counts


class Worker:
    """A process of `benchmarks.speed.step_workers`, which answers one word at a time."""

    def __init__(
        self, who: str, arguments: argparse.Namespace, precision: str, rung: int = 3
    ) -> None:
        job = {
            "who": who,
            "precision": precision,
            "rung": rung,
            "model": arguments.model,
            "batch": arguments.batch,
            "size": arguments.size,
            "device": arguments.device,
        }
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "benchmarks.speed.step_workers",
            json.dumps(job),
        ]
        pipe, self.ready = subprocess.PIPE, False
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        if arguments.device == "cpu":
            self.wait()

    def wait(self) -> None:
        """Until it has built its model; on a card all of them may do so at once."""
        if not self.ready:
            self._answer()
            self.ready = True

    def ask(self, word: str) -> dict[str, Any]:
        self.wait()
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(
                "zeroconv: a worker of the benchmark died; is there memory for both? See --batch "
                "and --size."
            )
        return json.loads(line)

    def end(self) -> None:
        self.process.communicate("end\n")


def compare(arguments: argparse.Namespace, precision: str) -> dict[str, Any]:
    """Both in turns, and the figures of a row."""
    workers = {who: Worker(who, arguments, precision) for who in ("theirs", "ours")}
    losses = {who: worker.ask("loss")["loss"] for who, worker in workers.items()}
    steps: dict[str, list[dict[str, Any]]] = {who: [] for who in workers}
    for number in range(WARM[arguments.device] + arguments.repeats):
        for who, worker in workers.items():
            answer = worker.ask("step")
            if number >= WARM[arguments.device]:
                steps[who].append(answer)
                print(f"{precision} {who} {answer['seconds']:.3f} s", flush=True)
    flops = {who: worker.ask("flops")["flops"] for who, worker in workers.items()}
    for worker in workers.values():
        worker.end()
    result: dict[str, Any] = {"precision": precision, "flops": flops["ours"]}
    result["their_flops"] = flops["theirs"]
    for who, answers in steps.items():
        seconds = [answer["seconds"] for answer in answers]
        result[who] = {
            "seconds": statistics.median(seconds),
            "least": min(seconds),
            "most": max(seconds),
            "samples_per_second": arguments.batch / statistics.median(seconds),
            "peak_gib": answers[-1]["peak"] / 2**30,
            "reserved_gib": answers[-1]["reserved"] / 2**30,
            "loss": losses[who],
            "parts": {
                part: statistics.median(a["parts"][part] for a in answers)
                for part in answers[0]["parts"]
            },
        }
    result["speedup"] = result["theirs"]["seconds"] / result["ours"]["seconds"]
    result["memory_ratio"] = result["ours"]["peak_gib"] / result["theirs"]["peak_gib"]
    result["loss_difference"] = abs(losses["ours"] / losses["theirs"] - 1)
    return result


def ladder(
    arguments: argparse.Namespace, precision: str, result: dict[str, Any]
) -> list[dict[str, Any]]:
    """Seconds and memory as the parts of ours are added one by one, each in a process of its
    own.
    """
    rungs, warm = [], WARM[arguments.device]
    if arguments.no_ladder:
        return []
    wanted: Any = (RUNGS if arguments.device == "cpu" else CARD_RUNGS)[precision]
    if "flux" in arguments.model and arguments.device == "cpu":
        wanted = FLUX_RUNGS
    early = (
        {}
        if arguments.device == "cpu"
        else {r: Worker("ours", arguments, precision, r) for r, _ in wanted[:-1]}
    )
    for rung, name in wanted:
        if rung == 3:
            rungs.append(
                {
                    "name": name,
                    "seconds": result["ours"]["seconds"],
                    "peak_gib": result["ours"]["peak_gib"],
                }
            )
            continue
        worker = early.get(rung) or Worker("ours", arguments, precision, rung)
        answers = [
            worker.ask("step") for _ in range(warm + min(3 if not early else 10, arguments.repeats))
        ]
        worker.end()
        seconds = statistics.median(answer["seconds"] for answer in answers[warm:])
        rungs.append({"name": name, "seconds": seconds, "peak_gib": answers[-1]["peak"] / 2**30})
    return rungs


def machine_peak(device: str, precisions: Sequence[str]) -> dict[str, float]:
    """GFLOP/s of a large matrix product and a large convolution in float32 and the precisions asked
    for (a processor without bfloat16 takes minutes for one such product): the best of several.
    """
    products = {}
    for name in dict.fromkeys(("fp32", *precisions)):
        dtype = DTYPES[name]
        a = torch.randn(4096, 4096, device=device, dtype=dtype)
        x = torch.randn(8, 320, 64, 64, device=device, dtype=dtype).contiguous(
            memory_format=torch.channels_last
        )
        w = torch.randn(320, 320, 3, 3, device=device, dtype=dtype).contiguous(
            memory_format=torch.channels_last
        )
        jobs = {
            f"matrix product {name}": (lambda a=a: a @ a, 2 * 4096**3),
            f"convolution {name}": (
                lambda x=x, w=w: torch.nn.functional.conv2d(x, w, padding=1),
                2 * 8 * 64**2 * 320**2 * 9,
            ),
        }
        for job, (run, flops) in jobs.items():
            times = []
            for _ in range(5):
                began = time.perf_counter()
                run()
                if device != "cpu":
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - began)
            products[job] = flops / min(times) / 1e9
    return products


def rounded(seconds: float) -> str:
    return (
        f"{seconds:.2f}"
        if seconds >= 1
        else f"{seconds:.2g}"
        if seconds < 0.01
        else f"{seconds:.3f}"
    )


def rows_of(results: list[dict[str, Any]], peak: float, on_cpu: bool = True) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for result in results:
        theirs, ours = result["theirs"], result["ours"]
        share = result["flops"] / ours["seconds"] / 1e9 / peak
        for who, name in (("theirs", "diffusers' script"), ("ours", "zeroconv")):
            one, reserved = (
                result[who],
                "" if on_cpu else f" ({result[who]['reserved_gib']:.2f} reserved)",
            )
            rows.append(
                [
                    f"{result['precision']}, {name}",
                    f"{rounded(one['seconds'])} [{rounded(one['least'])}, {rounded(one['most'])}]",
                    f"{one['samples_per_second']:.3f}",
                    f"{one['peak_gib']:.2f}{reserved}",
                    f"{one['loss']:.5f}",
                    ", ".join(
                        f"{part} {rounded(seconds)}" for part, seconds in one["parts"].items()
                    ),
                ]
            )
        rows.append(
            [
                f"{result['precision']}, ratio",
                f"{result['speedup']:.2f}× as fast",
                "",
                f"{result['memory_ratio']:.2f}× ({theirs['peak_gib'] - ours['peak_gib']:.2f} less)",
                f"differs by {result['loss_difference']:.0e}",
                f"{share:.0%} of the machine's best product",
            ]
        )
        cached = theirs["parts"]["autoencoder"] + theirs["parts"].get("text encoder", 0.0)
        rows.append(
            [
                f"{result['precision']}, theirs without its encoders",
                rounded(theirs["seconds"] - cached),
                *[""] * 4,
            ]
        )
        for rung in result["ladder"]:
            rows.append(
                [
                    f"{result['precision']}, ours with {rung['name']}",
                    rounded(rung["seconds"]),
                    "",
                    f"{rung['peak_gib']:.2f}",
                    "",
                    "",
                ]
            )
    return rows


def tell_log(arguments: argparse.Namespace) -> None:
    """The table of the steps in a log; of a file that begins with lines of "# ", which say where
    that was.
    """
    lines = arguments.from_log.read_text(encoding="utf-8").splitlines()
    where = " ".join(line[2:] for line in lines if line.startswith("# "))
    seconds: dict[tuple[str, str], list[float]] = {}
    for line in lines:
        if match := re.fullmatch(r"(\w+) (theirs|ours) ([\d.]+) s", line):
            seconds.setdefault((match[1], match[2]), []).append(float(match[3]))
    rows = []
    for precision in dict.fromkeys(precision for precision, _ in seconds):
        medians = {}
        for who, name in (("theirs", "diffusers' script"), ("ours", "zeroconv")):
            times = seconds[precision, who]
            medians[who] = statistics.median(times)
            rows.append([
                f"{precision}, {name}", f"{medians[who]:.3f} [{min(times):.3f}, {max(times):.3f}]",
                f"{arguments.batch / medians[who]:.1f}",
            ])  # fmt: skip
        rows.append(
            [f"{precision}, ratio", f"{medians['theirs'] / medians['ours']:.2f}× as fast", ""]
        )
    command = shlex.join(["python", "-m", "benchmarks.speed.train_step", *sys.argv[1:]])
    write_result(arguments.name, ["", "s a step", "samples a second"], rows, command, where)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("sd15", "tiny", "flux", "tiny-flux"), default="sd15")
    parser.add_argument("--precision", default="fp32,bf16")
    parser.add_argument("--size", type=int, default=None, help="pixels (256; 512 on a GPU)")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--no-ladder", action="store_true", help="without what each part of ours is worth"
    )
    parser.add_argument("--json", type=Path, default=None, help="the figures as a file")
    parser.add_argument("--name", default="train_step", help="of the file in benchmarks/results")
    parser.add_argument("--from-log", type=Path, help="what an earlier run printed")
    arguments = parser.parse_args()
    if arguments.from_log:
        tell_log(arguments)
        return
    if arguments.device == "auto":
        arguments.device = "cuda" if torch.cuda.is_available() else "cpu"
    arguments.size = arguments.size or (256 if arguments.device == "cpu" else 512)
    precisions = arguments.precision.split(",")
    peaks = machine_peak(arguments.device, precisions)
    results: list[dict[str, Any]] = []
    for precision in precisions:
        results.append({**compare(arguments, precision), "ladder": []})
        tell(arguments, peaks, results)  # a lent card may be gone before the rest is measured
        results[-1]["ladder"] = ladder(arguments, precision, results[-1])
        tell(arguments, peaks, results)


def tell(
    arguments: argparse.Namespace, peaks: dict[str, float], results: list[dict[str, Any]]
) -> None:
    """Print and keep what is measured so far."""
    if arguments.json:
        write_json(arguments.json, {"machine": peaks, "configurations": results})
    best, on_cpu = max(peaks.values()), arguments.device == "cpu"
    machine = f"cpu ({torch.get_num_threads()} threads)" if on_cpu else torch.cuda.get_device_name()
    note = (
        f"{arguments.model}, random weights, {arguments.size} px, batch {arguments.batch}, "
        f"{arguments.repeats} steps each in turns on {machine}; median [least, most]. Best product "
        f"of this machine: {best:.0f} GFLOP/s; a step of ours is {results[0]['flops'] / 1e12:.2f} "
        f"TFLOP, of the script {results[0]['their_flops'] / 1e12:.2f}. Ours "
        "without averaged weights, which the script has none of either; its latents "
        "and text states come from the cache."
    )
    if "flux" in arguments.model:
        note += (
            " One double block and two single ones: the autoencoder, and the text that nothing "
            "reads in a network's last block, weigh more here than in FLUX.1, which has 57."
        )
    columns = ["", "s a step", "samples a second", "peak GiB", "loss of the same batch", "parts, s"]
    command = shlex.join(["python", "-m", "benchmarks.speed.train_step", *sys.argv[1:]])
    write_result(arguments.name, columns, rows_of(results, best, on_cpu), command, note)


if __name__ == "__main__":
    main()
