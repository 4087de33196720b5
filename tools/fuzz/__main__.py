"""`python -m tools.fuzz [TARGET …] --count 10000 --seed 0`: print a line a target, exit 1 on any
fault.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tools.fuzz.harness import Report, run_target
from tools.fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--count", type=int, default=10_000, help="cases a target")
    parser.add_argument("--seed", type=int, default=0, help="case k of a seed is always the same")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--minutes", type=float, help="stop a target after so many minutes")
    parser.add_argument(
        "--out", type=Path, default=Path("build/fuzz"), help="where faults are kept"
    )
    options = parser.parse_args()

    unknown = sorted(set(options.targets) - set(TARGETS))
    if unknown:
        parser.error(f"there is no target {unknown[0]}; choose of {', '.join(TARGETS)}")

    reports = []
    for name in options.targets or TARGETS:
        began = time.monotonic()
        report = run_target(
            name,
            seed=options.seed,
            first=options.first,
            count=options.count,
            jobs=options.jobs,
            minutes=options.minutes,
            out=options.out.resolve(),
        )
        reports.append(report)
        print(_line(report, time.monotonic() - began), flush=True)
        for fault, example in report.faults.items():
            print(f"  fault: {fault}\n    {example}", flush=True)

    faults = sum(len(report.faults) for report in reports)
    cases = sum(report.cases for report in reports)
    print(f"{cases} cases of seed {options.seed}, {faults} kinds of faults")
    return 1 if faults else 0


def _line(report: Report, seconds: float) -> str:
    return (
        f"{report.target}: {report.cases} cases, {report.accepted} accepted, "
        f"{report.refused} refused in a sentence, {report.faulty} faulty, "
        f"slowest {report.slowest:.1f} s, memory {report.memory_mb} MB, {seconds:.0f} s in all"
    )


if __name__ == "__main__":
    sys.exit(main())
