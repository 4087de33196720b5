"""`zeroconv upscale`: a picture made larger tile by tile, with detail that the base adds."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from zeroconv.cli.bases import base_files, with_tiny_vae
from zeroconv.cli.options import (
    Base,
    Cfg,
    Device,
    Dtype,
    Engine,
    Fast,
    Json,
    Lora,
    Parts,
    Revision,
    Schedule,
    Scheduler,
    Seed,
    Steps,
    Subfolder,
    TinyVae,
    Vae,
    Variant,
)
from zeroconv.cli.terminal.answers import answer, answers_on_stdout
from zeroconv.cli.terminal.streams import echo, echo_error


def upscale(
    picture: Annotated[Path, Argument(help="The picture, a file.")],
    out: Annotated[Path, Option(help="A .png, .jpg or .webp.")] = Path("upscaled.png"),
    factor: Annotated[
        float, Option(min=1, max=16, help="How many times larger each side becomes.")
    ] = 4,
    prompt: Annotated[
        str | None, Option(help="The prompt; by default the one recorded in the picture, or none.")
    ] = None,
    control: Annotated[
        list[str] | None,
        Option(
            help="A control whose hints are drawn from each tile: best a tile control, or canny. "
            "May be repeated."
        ),
    ] = None,
    scale: Annotated[float, Option(min=-100, max=100, help="Strength of the controls.")] = 1.0,
    strength: Annotated[
        float, Option(min=0.01, max=1, help="Share of the steps that is taken again on each tile.")
    ] = 0.35,
    tile: Annotated[
        int | None, Option(min=8, max=8192, help="Pixels a side; the base's own size by default.")
    ] = None,
    overlap: Annotated[
        int | None, Option(min=0, max=4096, help="Pixels that tiles share; a quarter by default.")
    ] = None,
    free_colours: Annotated[
        bool, Option("--free-colours", help="Let coarse colours change; else they stay.")
    ] = False,
    base: Base = "playroom",
    lora: Lora = None,
    vae: Vae = None,
    tiny_vae: TinyVae = None,
    parts: Parts = None,
    revision: Revision = None,
    variant: Variant = None,
    subfolder: Subfolder = None,
    cfg: Cfg = None,
    steps: Steps = 20,
    seed: Seed = 0,
    scheduler: Scheduler = None,
    schedule: Schedule = None,
    fast: Fast = "off",
    engine: Engine = "torch",
    negative: Annotated[str, Option(help="What the picture should not show.")] = "",
    device: Device = "auto",
    dtype: Dtype = "auto",
    json: Json = False,
) -> None:
    """Make a picture larger, tile by tile, in bounded memory; its colours are kept."""
    options = {"cfg": cfg, "steps": steps, "seed": seed, "scheduler": scheduler}
    options |= {"schedule": schedule, "negative": negative, "fast": fast, "engine": engine}
    tiles = {"factor": factor, "strength": strength, "tile": tile, "overlap": overlap}
    tiles |= {"keep_colours": not free_colours}
    free = answers_on_stdout(out, json)
    files = base_files(vae, revision, variant, subfolder, lora, parts)
    files = with_tiny_vae(files, tiny_vae, fast)
    models = {"base": base, "device": device, "dtype": dtype}
    report = run(picture, out, prompt, control or [], scale, models, {**tiles, **options}, files)
    answer(report, json, lambda: (echo if free else echo_error)(str(out)))


def run(
    picture: Path,
    out: Path,
    prompt: str | None,
    controls: list[str],
    scale: float,
    models: dict[str, Any],
    options: dict[str, Any],
    files: dict[str, Any],
) -> dict[str, Any]:
    """The larger picture, saved; the report on it. files: of the base, see `base_files`. Raises
    UserError before any work for what can be seen without a model.
    """
    from zeroconv.cli.generate.run import check_outputs
    from zeroconv.generation.arguments import check_text
    from zeroconv.generation.engines import check_engine
    from zeroconv.generation.metadata.files import format_of
    from zeroconv.generation.samplers.names import read_names
    from zeroconv.generation.saving import parse_fast
    from zeroconv.pictures import note_transparent, open_picture

    format_of(out)
    check_outputs([out], [picture])
    read_names(options["scheduler"] or "unipc", options["schedule"])
    options = {**options, "fast": parse_fast(options["fast"]).words()}  # a preset can change later
    check_engine(options["engine"])
    check_text("--negative", options["negative"])
    words = described(picture) if prompt is None else prompt
    check_text("--prompt", words)
    source = open_picture(picture)
    note_transparent(picture)

    from zeroconv.backbones.devices import dtype_name, pick_device, pick_dtype
    from zeroconv.cli.generate.making import Models, machine
    from zeroconv.cli.terminal.progress import progress
    from zeroconv.generation import Control
    from zeroconv.generation import upscale as enlarge
    from zeroconv.generation.metadata.record import save_picture
    from zeroconv.generation.samplers.stepping import usual_scheduler

    device = pick_device(models["device"])
    numbers = pick_dtype(models["dtype"], device)
    loaded = Models()
    backbone = loaded.backbone(models["base"], device=device, dtype=numbers, **files)
    options = {**options, "scheduler": options["scheduler"] or usual_scheduler(backbone)}
    nets = [loaded.control(name, models["base"], backbone) for name in controls]
    hinted = [Control(net, None, scale=scale) for net in nets]
    with progress("tiles") as callback:
        made = enlarge(
            backbone, source, prompt=words, controls=hinted, callback=callback, **options
        )

    named = [{"name": n, "scale": scale, "start": 0.0, "end": 1.0} for n in controls]
    about = {"command": "upscale", "picture": str(picture), "prompt": words, **options}
    about |= {"lora": [], "vae": None, **models, **files, "controls": named}
    about |= {"device": device, "dtype": dtype_name(numbers)}
    about |= {"width": made.width, "height": made.height, "made_with": machine()}
    save_picture(made, out, about)
    return {"file": str(out), **about}


def described(picture: Path) -> str:
    """The prompt in the picture's own words, with a note; nothing where there is none."""
    from zeroconv.errors import UserError
    from zeroconv.generation.metadata.record import read_foreign, read_info
    from zeroconv.pictures.carried import carried

    texts = carried(picture)
    try:
        if "zeroconv" in texts:
            words = str(read_info(picture).get("prompt", ""))
        else:
            words = str((read_foreign(picture).values.get("prompt") or [""])[0]) if texts else ""
    except UserError as error:
        warnings.warn(f"{error} The prompt is empty; give --prompt.", stacklevel=2)
        return ""
    if words:
        warnings.warn(f"the prompt is the picture's own, {words[:100]!r}.", stacklevel=2)
    return words
