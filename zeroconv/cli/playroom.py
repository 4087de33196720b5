"""The commands of `zeroconv playroom`: render scenes, draw stickers and circles, train the base
model.
"""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from typer import Argument, Option

from zeroconv.cli.terminal.progress import progress
from zeroconv.cli.terminal.shell import App
from zeroconv.cli.terminal.streams import echo_error, one_line
from zeroconv.errors import UserError
from zeroconv.files import atomic_write, filling, replace_marked

if TYPE_CHECKING:
    from zeroconv.playroom import Scene

app = App(
    no_args_is_help=True, help="The playroom: render scenes and stickers, train its base model."
)

LISTS = ["metadata.jsonl", "README.md"]  # of the stickers
Workers = Annotated[int | None, Option(min=1, max=1024, help="Processes; one a core by default.")]
# what a folder of scenes may hold beside pictures and captions; depth is the hint, near is white
MAPS = ("depth", "normal", "segmentation", "instances", "outline", "keypoints")


@app.command()
def render(
    out: Annotated[Path, Argument(help="The imagefolder to make.")],
    count: Annotated[int, Option(min=1, max=10_000_000, help="Scenes.")] = 16,
    split: Annotated[str, Option(help="train, val or test; their seeds never overlap.")] = "train",
    first: Annotated[
        int, Option(min=0, max=2**31, help="Number of the first scene in its split.")
    ] = 0,
    size: Annotated[int, Option(min=64, max=1024, help="Pixels: 64, 128, 256, …")] = 128,
    maps: Annotated[
        str, Option(help=f"Exact maps to write too, by commas, of {', '.join(MAPS)}; or none.")
    ] = "depth",
    workers: Workers = None,
) -> None:
    """Render scenes into an imagefolder: pictures, captions in metadata.jsonl, and exact maps."""
    from zeroconv import playroom
    from zeroconv.playroom.scene import SIZES

    wanted = [] if maps == "none" else [name.strip() for name in maps.split(",")]
    unknown = [name for name in wanted if name not in MAPS]
    if unknown:
        raise UserError(
            f"scenes have no map {unknown[0]!r}; choose from {', '.join(MAPS)}, or none"
        )
    if split not in playroom.SPLITS:
        raise UserError(f"unknown split {split!r}; choose from {', '.join(playroom.SPLITS)}")
    try:
        seeds = playroom.split_seeds(split, count, start=first)
    except ValueError as error:
        raise UserError(str(error)) from error
    if size not in SIZES:
        raise UserError(f"scenes are drawn at {', '.join(map(str, SIZES))} pixels, not {size}")
    lines = []
    what = f"scenes of the {split} split at {size} pixels"  # of others the names are the same
    held = filling(out, what, lists=["metadata.jsonl"])
    with held, progress("rendering") as callback:
        for start in range(0, count, 256):  # a few at a time: maps of many scenes fill the memory
            scenes = playroom.render_many(
                seeds[start : start + 256], size, workers=workers, maps=True
            )
            for index, scene in enumerate(scenes, start=first + start):
                lines.append(_write_scene(scene, out, f"{index:05d}.png", wanted))
                callback(len(lines), count)
        with atomic_write(out / "metadata.jsonl", follow=False) as temporary:
            text = "".join(jsonlib.dumps(line) + "\n" for line in lines)
            temporary.write_text(text, encoding="utf-8")
    typer.echo(f"{len(lines)} scenes: {out}")


def _write_scene(scene: Scene, out: Path, name: str, maps: list[str]) -> dict[str, Any]:
    """Write picture and maps; returns the scene's line of metadata.jsonl."""
    from zeroconv.conditions.maps import PLAYROOM_COLOURS, depth_to_hint, normal_to_hint

    line: dict[str, Any] = {
        "file_name": f"images/{name}",
        "text": scene.caption,
        "seed": scene.seed,
    }
    _save(scene.image, out / line["file_name"])
    arrays = {
        "depth": lambda: depth_to_hint(scene.depth),
        "normal": lambda: normal_to_hint(scene.normal),
        "segmentation": lambda: scene.segmentation,
        "instances": lambda: scene.instances,
        "outline": lambda: scene.outline,
    }
    for kind in maps:
        if kind == "keypoints":
            line[kind] = [people.round(2).tolist() for people in scene.keypoints]
        else:
            line[kind] = f"{kind}/{name}"
            picture = Image.fromarray(arrays[kind]())
            # class ids, with the colours of segmentation hints as their palette
            if kind == "segmentation":
                picture.putpalette([value for colour in PLAYROOM_COLOURS for value in colour])
            _save(picture, out / line[kind])
    return line


def _known(what: str, names: Sequence[str] | None, known: Iterable[str]) -> None:
    """Raise UserError for a name that is none, before a folder is made."""
    if wrong := [name for name in names or () if name not in known]:
        raise UserError(f"there is no {what} {wrong[0]!r}: choose from {', '.join(known)}")


def _save(picture: Image.Image, path: Path) -> None:
    replace_marked(path)
    about = PngInfo()
    about.add_text("Software", "zeroconv")  # by this sign the file is known as ours
    with atomic_write(path, follow=False) as temporary:
        picture.save(temporary, format="PNG", pnginfo=about)


@app.command()
def stickers(
    out: Annotated[Path, Argument(help="The imagefolder to make.")],
    source: Annotated[
        list[str] | None, Option(help="An icon set; all of them by default. May be repeated.")
    ] = None,
    size: Annotated[int, Option(min=8, max=2048, help="Pixels a side.")] = 128,
    packages: Annotated[
        Path | None, Option(help="Folder with the npm packages; else npm downloads them.")
    ] = None,
    limit: Annotated[
        int | None, Option(min=1, max=1_000_000, help="Most pictures of each icon set.")
    ] = None,
    workers: Workers = None,
) -> None:
    """Render openly licensed emoji art into an imagefolder with captions, masks, licences and a
    card.
    """
    from zeroconv.playroom.stickers import SOURCES, build_stickers

    _known("icon set", source, SOURCES)
    with filling(out, "stickers", [".stickers.json"], LISTS), progress("drawing") as callback:
        done = build_stickers(
            out, source or tuple(SOURCES), size, packages, workers, limit, callback
        )
    splits = ", ".join(f"{count} {split}" for split, count in done.by_split.items())
    typer.echo(
        f"{done.pictures} stickers ({splits}), {done.rendered} drawn in {done.seconds:.0f} s: {out}"
    )
    if done.failed:
        echo_error(
            "note: "
            + one_line(f"{len(done.failed)} could not be drawn, {done.failed[0]} the first")
        )


@app.command()
def fill50k(
    out: Annotated[Path, Argument(help="The folder to make: source/, target/ and prompt.json.")],
    count: Annotated[int, Option(min=1, max=10_000_000, help="Pictures.")] = 50_000,
    size: Annotated[
        int, Option(min=32, max=4096, help="Pixels a side; 128 for the playroom base.")
    ] = 512,
    seed: Annotated[int, Option(min=0, max=2**31, help="Each seed gives another data set.")] = 0,
    first: Annotated[
        int,
        Option(
            min=0, max=2**31, help="Number of the first picture, to draw other pictures for tests."
        ),
    ] = 0,
    workers: Workers = None,
) -> None:
    """Draw the circles of the classic training tutorial; `zeroconv train` reads the folder as it
    is.
    """
    from zeroconv.playroom.fill50k import build_fill50k

    held = filling(out, "circles", ["fill50k.json"], ["prompt.json"])
    with held, progress("drawing") as callback:
        drawn = build_fill50k(out, count, size, seed, first, workers, callback)
    typer.echo(f"{count} circles, {drawn} drawn now: {out}")


@app.command("train-base")
def train_base(
    out: Annotated[Path, Argument(help="Folder of the run; the same command continues it.")],
    stickers: Annotated[Path, Option(help="The folder made by `zeroconv playroom stickers`.")],
    minutes: Annotated[
        float | None,
        Option(min=0.01, max=1e6, help="Time for all stages instead of their own lengths."),
    ] = None,
    stage: Annotated[list[str] | None, Option(help="Only this stage; may be repeated.")] = None,
    threads: Annotated[int | None, Option(min=1, max=1024, help="CPU threads.")] = None,
    workers: Workers = None,
) -> None:
    """Train the playroom base from random weights: VAE, text and UNet, decoder. Hours on two cores;
    resumable.
    """
    from zeroconv.scratch import stages as base

    stages = tuple(stage) if stage else base.STAGES
    _known("stage", stage, base.STAGES)
    if "pictures" in stages and not (stickers / "metadata.jsonl").is_file():
        raise UserError(
            f"{stickers} holds no stickers: make them with `zeroconv playroom stickers`"
        )
    with filling(
        out,
        "training a base",
        ["run/autoencoder/state.pt", "run/autoencoder.pt", "run/diffusion.pt"],
    ):
        settings: dict[str, Any] = {"minutes": minutes, "threads": threads, "workers": workers}
        folder = base.train_base(out, stickers, stages=stages, **settings)
    typer.echo(str(folder))
