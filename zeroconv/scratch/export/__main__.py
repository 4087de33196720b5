"""An averaged base as a diffusers pipeline folder: the embedded VAE and tokenizer, new weights.

python -m zeroconv.scratch.export RUN FOLDER --average 0.9995
"""

from __future__ import annotations

import argparse
from pathlib import Path

from zeroconv.scratch.export.bases import export_base, export_flow


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--average", default="0.9995")
    parser.add_argument("--what", choices=["base", "flow"], default="base")
    arguments = parser.parse_args()

    export = export_flow if arguments.what == "flow" else export_base
    step = export(arguments.run, arguments.folder, arguments.average)
    print(f"{arguments.folder}: average {arguments.average} at step {step}")


if __name__ == "__main__":
    main()
