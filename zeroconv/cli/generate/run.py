"""What `zeroconv generate` does: find the models, prepare the hints, make and save the pictures."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from zeroconv.cli.generate.adapters import load_adapters, open_adapters, pictures_of
from zeroconv.cli.generate.controls import (
    ControlSpec,
    known_condition,
    named_condition,
)
from zeroconv.cli.generate.hinting import hint_of, open_source, open_spec_mask
from zeroconv.cli.generate.making import SUFFIXES, Calls, Making, machine, of_pictures
from zeroconv.cli.generate.pictured import Frame, check_given, loras_of_prompts, open_given
from zeroconv.cli.terminal.progress import progress
from zeroconv.collector import collect_again, uncollected
from zeroconv.errors import UserError
from zeroconv.files import check_not_input, check_output, is_stream
from zeroconv.pictures import Loaded

MOST_PICTURES = 100_000  # of one call


def check_request(prompts: Sequence[str], request: dict[str, Any]) -> None:
    """Raise UserError for what can be seen without a model; `generate` checks again, and the
    rest.
    """
    from zeroconv.generation.arguments import texts
    from zeroconv.generation.engines import check_engine
    from zeroconv.generation.samplers.stepping import check_sampling
    from zeroconv.generation.saving import parse_fast

    names = ("scheduler", "schedule", "eta", "guidance_rescale", "noise")
    check_sampling(*(request[name] for name in names))
    request["fast"] = parse_fast(request.get("fast")).words()  # a preset can change later
    request["engine"] = check_engine(request.get("engine", "torch"))
    texts("the prompt", list(prompts))
    texts("--negative", request["negative"])
    check_given(request)
    total = len(prompts) * request["count"]
    if total > MOST_PICTURES:
        raise UserError(
            f"{total} pictures are asked for: give {MOST_PICTURES} at most, and call again for more"
        )


def load_embeddings(words: Sequence[str]) -> list[Any]:
    """FILE or NAME=FILE each; a file whose whole name is the word wins."""
    from zeroconv.prompts.embeddings import load_embedding

    loaded = []
    for word in words:
        name, equals, file = word.partition("=")
        is_path = not equals or Path(word).exists()
        loaded.append(load_embedding(word) if is_path else load_embedding(file, name))
    return loaded


def pair_of(option: str, height: int | None, width: int | None) -> list[int] | None:
    """Both sides or none. Raises UserError for one alone."""
    if height is None and width is None:
        return None
    if height is None or width is None:
        raise UserError(f"{option}-height and {option}-width belong together: give both.")
    return [height, width]


def picture_size(
    backbone: Any, pictures: Sequence[Loaded | Path], request: dict[str, Any]
) -> tuple[int, int]:
    """Width and height as `generate` chooses them: asked for, else the first picture's shape."""
    from zeroconv.generation.arguments import size_of
    from zeroconv.generation.pipeline import shape_like

    square = (backbone.default_size, backbone.default_size)
    default = shape_like(pictures[0], backbone) if pictures else square
    asked = request["height"], request["width"]
    height, width = size_of(default, backbone.latent_scale, *asked, None)
    return width, height


@uncollected()
def run(
    prompts: list[str],
    specs: list[ControlSpec],
    base: str,
    out: Path,
    device: str,
    dtype: str,
    request: dict[str, Any],
    lora: Sequence[str],
    report: dict[str, Any],
    saved: Callable[[str], None] = lambda path: None,
    files: Mapping[str, Any] | None = None,
    vary: Sequence[str] = (),
    making: Making | None = None,
) -> None:
    """Make the pictures of one `zeroconv generate`; each is saved when its batch is done. `vary`:
    settings and their values, for one sheet instead.

    `report` is filled as the work goes: it is what `--json` prints, also of work cut short.
    `saved` hears the path of each picture. `files`: which of the base's files are read, as
    `load_backbone` takes it: vae, revision, variant, subfolder, offload, quantise, vae_tiling.
    `making`: what pictures keep, and how one is made again.
    """
    making = making or Making()
    files = {name: value for name, value in (files or {}).items() if value is not None}
    check_memory(files)
    check_request(prompts, request)  # before the slow part: bad input is told at once
    axes = check_vary(vary, prompts, request, len(specs))
    paths = output_paths(out, len(prompts) * request["count"])
    with of_pictures():
        given = open_given(request, making.pictures)
    tagged = loras_of_prompts(prompts, making.lora_folders, request["plain_prompt"])
    inputs = [path for spec in specs for path in (spec.picture, spec.mask)]
    inputs += [Path(request[name]) for name in given if name not in making.pictures]
    fresh = [spec for spec in making.adapters if spec.kept is None]
    inputs += [path for spec in fresh for path in (spec.picture, spec.region)]
    check_outputs(paths, [*inputs, *making.inputs])
    beside = open_adapters(making.adapters)
    pictures = [open_source(spec) for spec in specs]
    masks = [open_spec_mask(spec) for spec in specs]
    embeddings = load_embeddings(request["embeddings"])

    from zeroconv.backbones.devices import dtype_name, pick_device, pick_dtype
    from zeroconv.generation import Control, generate
    from zeroconv.generation.guidance import settled
    from zeroconv.generation.metadata.record import save_picture
    from zeroconv.generation.samplers.stepping import usual_scheduler

    models = making.models
    began = time.perf_counter()
    device = pick_device(device)
    numbers = pick_dtype(dtype, device)
    merged = [*lora, *tagged]
    backbone = models.backbone(base, device=device, dtype=numbers, lora=merged, **files)
    guidance, cfg = settled(backbone, request["guidance"], request["cfg"])
    request = {**request, "guidance": guidance, "cfg": cfg}
    request["scheduler"] = request["scheduler"] or usual_scheduler(backbone)
    frame = Frame(backbone, request, given) if given else None
    size = picture_size(backbone, pictures, request) if frame is None else frame.size
    controls, hints = [], []
    for spec, picture, mask in zip(specs, pictures, masks, strict=True):
        net = models.control(spec.name, base, backbone)
        if frame is not None:
            condition = known_condition(named_condition(net) or spec.name)
            picture = frame.source(spec, picture, condition)
        hint = hint_of(spec, picture, net, size if frame is None else frame.hint_size)
        window: dict[str, Any] = {"scale": spec.scale, "start": spec.start, "end": spec.end}
        window |= {"resize": spec.resize or "stretch", "passes": spec.passes}
        hints.append(hint)
        controls.append(Control(net, hint, **window, mode=spec.mode, region=mask))

    adapters = load_adapters(beside, backbone)
    descriptions = [describe(spec) for spec in specs]
    common: dict[str, Any] = {"base": base, **files, "lora": list(lora), "controls": descriptions}
    common |= {"device": device, "dtype": dtype_name(numbers)}
    collect_again()
    began, loading = time.perf_counter(), time.perf_counter() - began
    common |= {"vary": list(vary)} if vary else {}
    common |= {"made_with": machine(), **making.kept()}
    if adapters:
        common |= {"adapters": [spec.described() for spec in beside]}
    regions = {f"mask {i}": mask for i, mask in enumerate(masks) if mask is not None}
    regions |= pictures_of(beside)
    report |= {"pictures": [], **common, **request, "finished": False}

    batch = batch_size(size, device)
    calls = Calls(prompts, request, batch, making.batch)

    def keep(number: int, image: Image.Image) -> None:
        wanted = calls.number(number)
        if wanted is None:  # made beside the one that is asked for
            return
        number, made = wanted, calls.made(wanted)
        about = {**request, **common, **made, "width": size[0], "height": size[1]}
        save_picture(image, paths[number], about, hints, {**given, **regions})
        made.pop("batch", None)
        report["pictures"].append({"file": str(paths[number]), **made})
        generating = time.perf_counter() - began
        report["seconds"] = {"loading": round(loading, 3), "generating": round(generating, 3)}
        saved(str(paths[number]))

    if axes:
        asked = {**request, **given, "adapters": adapters}
        sheet = draw_varied(backbone, prompts[0], controls, axes, asked)
        keep(0, sheet)
        report["finished"] = True
        return
    try:
        with progress("denoising") as callback:
            heard: dict[str, Any] = {"callback": callback, "finished": keep}
            words, options = calls.arguments(backbone, size)
            asked = {**request, "embeddings": embeddings, **options, **given}
            asked["adapters"] = adapters
            with calls.quiet(loras=bool(tagged)):
                generate(backbone, words, controls, **heard, **asked)
    except BaseException:
        done = len(report["pictures"])
        if done:
            last = paths[done - 1]
            warnings.warn(
                f"{done} of {len(paths)} pictures are done and saved, the last is {last}",
                stacklevel=1,
            )
        raise
    report["finished"] = True


def check_memory(files: Mapping[str, Any]) -> None:
    """Raise UserError for words that `load_backbone` would refuse."""
    if "offload" in files or "quantise" in files:
        from zeroconv.backbones.offload import check_offload
        from zeroconv.layers.quantised import check_quantise

        check_offload(files.get("offload", "none"))
        check_quantise(files.get("quantise"))


def check_vary(
    vary: Sequence[str], prompts: Sequence[str], request: dict[str, Any], controls: int
) -> list[Any]:
    """The axes of `--vary`. Raises UserError for what can be seen without a model."""
    if not vary:
        return []
    from zeroconv.generation.vary import check_combinations, combinations, parse_axis

    axes = [parse_axis(text) for text in vary]
    if len(prompts) * request["count"] > 1:
        raise UserError("--vary draws one sheet of one prompt; for more seeds, --vary seed=0,1,2.")
    with warnings.catch_warnings():  # the note on their number comes when they are drawn
        warnings.simplefilter("ignore")
        check_combinations(combinations(axes), request, controls)
    return axes


def draw_varied(
    backbone: Any, prompt: str, controls: list[Any], axes: list[Any], request: dict[str, Any]
) -> Image.Image:
    """The sheet, with a bar that counts pictures."""
    from zeroconv.generation.vary import vary

    with progress("pictures") as callback:
        return vary(backbone, prompt, controls, axes, finished=callback, **request)


def batch_size(size: tuple[int, int], device: str) -> int:
    """Pictures that are made at once: as many as take less time together, since all wait for the
    last.

    On two cores eight pictures of Stable Diffusion's size take as long together as one by one.
    """
    enough = 128 * 128 if device == "cpu" else 512 * 512
    return max(1, min(8, 8 * enough // (size[0] * size[1])))


def describe(spec: ControlSpec) -> dict[str, Any]:
    """A control as the report and the PNG carry it."""
    return {
        "name": spec.name,
        "picture": str(spec.picture),
        "drawn": spec.draw,
        "scale": spec.scale,
        "start": spec.start,
        "end": spec.end,
        "mode": spec.mode,
        "mask": None if spec.mask is None else str(spec.mask),
        "resize": spec.resize,
        "passes": spec.passes,
        "of_image": spec.of_image,
    }


def check_outputs(paths: Sequence[Path], inputs: Sequence[Path | None]) -> None:
    """Raise UserError unless every output can be written, is no input, and replaces but ours."""
    for path in paths:
        if path is paths[0] or path.exists():
            check_not_input(path, inputs)
            check_output(path, "file", ours=True)


def output_paths(out: Path, count: int) -> list[Path]:
    """One picture: the file itself. Several: numbered. No suffix: a folder of numbered pictures.

    A FIFO or a device takes one picture. Raises UserError.
    """
    if out.is_dir():
        return [out / f"{i:04d}.png" for i in range(count)]
    if is_stream(out):
        if count > 1:
            raise UserError(f"{out} takes one picture, and there will be {count}: name a folder")
        return [out]
    if not out.suffix:
        return [out / f"{i:04d}.png" for i in range(count)]
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"--out {out}: pictures are saved as .png, .jpg or .webp, which carry how they were "
            "made; a folder with a dot in its name must be there already"
        )
    if count == 1:
        return [out]
    return [out.with_name(f"{out.stem}-{i}{out.suffix}") for i in range(count)]
