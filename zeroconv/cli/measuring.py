"""The commands that measure and show what a control does: evaluate, reproduce, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from zeroconv.cli.bases import base_files, with_tiny_vae
from zeroconv.cli.options import (
    Base,
    Cfg,
    Device,
    Dtype,
    Engine,
    Fast,
    Guidance,
    Lora,
    Parts,
    Revision,
    Seed,
    Steps,
    Subfolder,
    TinyVae,
    Vae,
    Variant,
)
from zeroconv.cli.terminal.streams import echo_error


def evaluate(
    control: Annotated[str, Argument(help="canny, depth, …, a folder, a file, or a hub id.")],
    data: Annotated[
        str, Option(help="playroom:test, stickers, or a folder with hints.")
    ] = "playroom:test",
    base: Base = "playroom",
    lora: Lora = None,
    vae: Vae = None,
    tiny_vae: TinyVae = None,
    parts: Parts = None,
    revision: Revision = None,
    variant: Variant = None,
    subfolder: Subfolder = None,
    limit: Annotated[int, Option(min=2, max=1_000_000, help="Held-out pictures.")] = 200,
    limit_none: Annotated[
        int | None,
        Option(min=0, max=1_000_000, help="How many of them also without control; all by default."),
    ] = None,
    prompts: Annotated[
        str, Option(help="own, empty, insufficient, conflicting (the paper's figure 8), or all.")
    ] = "own",
    guidance: Guidance = None,
    cfg: Cfg = None,
    steps: Steps = 12,
    seed: Seed = 0,
    fast: Fast = "off",
    engine: Engine = "torch",
    condition: Annotated[
        str | None,
        Option(help="What the hints show, of a control that does not say so; a Union's kind."),
    ] = None,
    judge: Annotated[
        str, Option(help="Reader of depth, normals, classes, poses: playroom, a folder or hub id.")
    ] = "auto",
    features: Annotated[
        str,
        Option(help="For FID and KID: playroom, FID's Inception as .safetensors, a vision model."),
    ] = "auto",
    clip: Annotated[
        str | None, Option(help="Folder or hub id of a CLIP, for a CLIP score.")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    json: Annotated[
        Path | None, Option(help="Write the whole report to this file; - prints it.")
    ] = None,
    page: Annotated[
        Path | None, Option("--html", help="Write a page with the best, median and worst pictures.")
    ] = None,
) -> None:
    """Measure how well a control is followed: generate, read the hint back from the pictures,
    compare.
    """
    from zeroconv.cli.evaluate import run

    settings: dict[str, Any] = {
        "count": limit,
        "count_none": limit_none,
        "prompts": prompts,
        "guidance": guidance,
        "data": data,
    }
    settings |= {
        "cfg": cfg,
        "steps": steps,
        "seed": seed,
        "fast": fast,
        "engine": engine,
        "condition": condition,
        "judge": judge,
        "features": features,
        "clip": clip,
    }
    files = base_files(vae, revision, variant, subfolder, lora, parts)
    files = with_tiny_vae(files, tiny_vae, fast)
    run(control, base, settings, json, page, files, device, dtype)


def reproduce(
    context: typer.Context,
    figure: Annotated[
        str | None, Argument(help="fig7, shipped, or all; without a name, a list.")
    ] = None,
) -> None:
    """Reproduce figures of the paper, with numbers. Needs a checkout; each figure's options follow
    its name.
    """
    from zeroconv.cli.reproduce import run

    raise typer.Exit(run([*([figure] if figure else []), *context.args]))


def demo(
    out: Annotated[Path, Option(help="Folder of the gallery.")] = Path("demo"),
    base: Base = "playroom",
    lora: Lora = None,
    vae: Vae = None,
    parts: Parts = None,
    revision: Revision = None,
    variant: Variant = None,
    subfolder: Subfolder = None,
    steps: Steps = 12,
    seeds: Annotated[int, Option(min=1, max=1000, help="Pictures with control a row.")] = 4,
    cfg: Cfg = None,
    guidance: Guidance = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Draw the gallery: pictures with and without control, for every embedded control."""
    from zeroconv.cli.gallery import demo as draw

    settings: dict[str, Any] = {"steps": steps, "seeds": seeds, "cfg": cfg, "guidance": guidance}
    settings["files"] = base_files(vae, revision, variant, subfolder, lora, parts)
    typer.echo(
        str(draw(out, base=base, device=device, dtype=dtype, print_line=echo_error, **settings))
    )
