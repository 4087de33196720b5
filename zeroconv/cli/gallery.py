"""The demo gallery: hint | without control | with control, on pictures that no network was trained
on.

`demo` makes the rows from the embedded world and models; `draw` fills them with pictures; `write`
makes the page and the contact sheet. Models and pictures come in as arguments, so that a test can
run it all with tiny ones.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

from zeroconv.errors import UserError
from zeroconv.files import atomic_folder, check_output

if TYPE_CHECKING:
    from zeroconv.baselines import Net


@dataclass
class Row:
    """One line of the gallery: a hint, the picture it came from, a prompt, and what was made of
    them.
    """

    section: str
    condition: str
    prompt: str
    hint: Image.Image
    original: Image.Image
    without: Image.Image | None = None
    images: list[Image.Image] = field(default_factory=list)


SECTIONS = {
    "canny-scenes": "Edges of held-out scenes",
    "lines-scenes": "Straight line segments",
    "softedge-scenes": "Soft edges",
    "scribble-scenes": "Scribbles",
    "pose-scenes": "Poses",
    "segmentation-scenes": "Segmentation: a colour a class",
    "depth-scenes": "Depth (near is white)",
    "normal-scenes": "Surface normals",
    "lineart-scenes": "Line art",
    "canny-stickers": "Edges of real stickers, of concepts no network has seen",
    "canny-photo": "Edges of a real photograph, under three prompts",
}
PHOTO_PROMPTS = (
    "",
    "a hot beverage, noto style, on a yellow background",
    "a large purple cylinder on a wooden floor in front of a pale blue wall",
)


def demo(
    out: Path,
    *,
    base: str = "playroom",
    steps: int = 12,
    seeds: int = 4,
    cfg: float | None = None,
    guidance: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    files: Mapping[str, Any] | None = None,
    print_line: Callable[[str], None] = print,
) -> Path:
    """Draw the gallery of the embedded models into the folder `out`; returns the path of its page.

    out: absent, empty, or a gallery that was drawn before and nothing else. files: of the base, as
    `load_backbone` takes them. Raises UserError.
    """
    from zeroconv.backbones import load_backbone
    from zeroconv.backbones.devices import pick_device, pick_dtype
    from zeroconv.cli.generate.controls import load_control
    from zeroconv.generation.guidance import settled

    check_output(out, "folder")  # before the slow part
    began = time.perf_counter()
    device = pick_device(device)
    backbone = load_backbone(base, device=device, dtype=pick_dtype(dtype, device), **(files or {}))
    guidance, cfg = settled(backbone, guidance, cfg)
    size = backbone.default_size
    rows = [*scene_rows(size), *sticker_rows(size), *photo_rows(size)]
    names = dict.fromkeys(row.condition for row in rows)
    # the embedded ones, even where a folder here is called canny
    before = "playroom-" if base.startswith("playroom") else ""
    loaded = {name: load_control(f"{before}{name}", base, backbone) for name in names}
    controls = {name: net.to(backbone.device) for name, net in loaded.items()}
    print_line(f"models loaded in {time.perf_counter() - began:.1f} s")
    draw(
        rows,
        backbone,
        controls,
        steps=steps,
        cfg=cfg,
        guidance=guidance,
        seeds=range(seeds),
        print_line=print_line,
    )
    seconds = time.perf_counter() - began
    how = f"{steps} steps each, guidance {guidance} at {cfg:g}"
    facts = f"{len(rows) * (1 + seeds)} pictures, {how}, {seconds:.0f} s in all"
    return write(rows, out, facts)


def scene_rows(size: int) -> list[Row]:
    """A row a condition, each from another scene of the test split; people for the poses."""
    from zeroconv.conditions import PAPER
    from zeroconv.data import open_dataset

    rows = []
    for number, condition in enumerate(PAPER):
        only = "&only=person" if condition == "pose" else ""
        spec = f"playroom:test:1?start={7 * number}{only}"
        example = open_dataset(spec, condition=condition, size=size)[0]
        assert example.hint is not None
        rows.append(
            Row(f"{condition}-scenes", condition, example.caption, example.hint, example.image)
        )
    return rows


def sticker_rows(size: int, count: int = 4) -> list[Row]:
    """Rows from the stickers in the package whose concepts were held out from every training."""
    from zeroconv.conditions import annotate
    from zeroconv.playroom import stickers

    held_out = stickers.load_stickers(stickers.sample_folder(), "test")
    if not held_out:
        raise UserError(
            f"no sticker in {stickers.sample_folder()} belongs to the test split; build the sample "
            "again"
        )
    concepts = list({record.concept: record for record in held_out}.values())
    rows = []
    for record in concepts[:: max(1, len(concepts) // count)][:count]:
        picture = square(record.image(), size)
        rows.append(
            Row("canny-stickers", "canny", record.text, annotate("canny", picture), picture)
        )
    return rows


def photo_rows(size: int) -> list[Row]:
    """One photograph (scikit-image's `coffee`), its edges, three prompts."""
    from zeroconv.conditions import annotate

    try:
        from skimage.data import coffee
    except ImportError as error:
        raise UserError(
            "the gallery's photograph comes with scikit-image: pip install 'zeroconv[demo]'"
        ) from error
    photo = square(Image.fromarray(coffee()), size)
    # a photograph has finer edges than the playroom; higher thresholds keep the ones that
    # make the thing
    hint = annotate("canny", photo, low=150, high=300)
    return [Row("canny-photo", "canny", prompt, hint, photo) for prompt in PHOTO_PROMPTS]


def square(picture: Image.Image, size: int) -> Image.Image:
    """The middle of a picture, as a square of `size` pixels."""
    return ImageOps.fit(picture.convert("RGB"), (size, size), method=Image.Resampling.LANCZOS)


def draw(
    rows: Sequence[Row],
    backbone: Any,
    controls: dict[str, Net],
    *,
    steps: int,
    cfg: float,
    guidance: str,
    seeds: Iterable[int],
    print_line: Callable[[str], None],
    batch_size: int = 8,
) -> None:
    """Fill every row: one picture without control, then one a seed with it; a whole section goes
    through together.
    """
    from zeroconv.generation import Control, generate

    seeds = list(seeds)
    options: dict[str, Any] = {
        "steps": steps,
        "cfg": cfg,
        "guidance": guidance,
        "batch_size": batch_size,
    }
    for section in dict.fromkeys(row.section for row in rows):
        began = time.perf_counter()
        of_section = [row for row in rows if row.section == section]
        plain = generate(
            backbone,
            [row.prompt for row in of_section],
            seed=[seeds[0]] * len(of_section),
            **options,
        )
        pairs = [(row, seed) for row in of_section for seed in seeds]
        control = Control(controls[of_section[0].condition], [row.hint for row, _ in pairs])
        prompts = [row.prompt for row, _ in pairs]
        guided = generate(backbone, prompts, [control], seed=[seed for _, seed in pairs], **options)
        for row, image in zip(of_section, plain, strict=True):
            row.without = image
        for (row, _), image in zip(pairs, guided, strict=True):
            row.images.append(image)
        print_line(
            f"{SECTIONS[section]}: {len(plain) + len(guided)} pictures in "
            f"{time.perf_counter() - began:.1f} s"
        )


def write(rows: Sequence[Row], out: Path, facts: str) -> Path:
    """Write the page, its pictures and the contact sheet; the folder appears whole or not at
    all.
    """
    with atomic_folder(out) as folder:
        (folder / "pictures").mkdir()
        names = [_save(row, i, folder / "pictures") for i, row in enumerate(rows)]
        contact_sheet(rows).save(folder / "gallery.png")
        (folder / "index.html").write_text(_page(rows, names, facts), encoding="utf-8")
    return out / "index.html"


def _cells(row: Row) -> list[tuple[str, Image.Image]]:
    assert row.without is not None
    heads = [
        "picture",
        "hint",
        "without control",
        *(f"with control, seed {i}" for i in range(len(row.images))),
    ]
    return list(zip(heads, [row.original, row.hint, row.without, *row.images], strict=True))


def _save(row: Row, index: int, folder: Path) -> list[tuple[str, str]]:
    named = []
    for i, (head, image) in enumerate(_cells(row)):
        name = f"{index:02d}-{row.section}-{i}.png"
        image.save(folder / name)
        named.append((head, f"pictures/{name}"))
    return named


_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1240px;
  padding: 0 1rem; }
h2 { margin: 2.2rem 0 .3rem; font-size: 1.15rem; }
table { border-spacing: 6px 4px; }
th { font-weight: normal; font-size: .8rem; opacity: .75; text-align: left; }
td.prompt { padding: .1rem 0 .8rem; font-style: italic; }
img { display: block; width: 148px; border-radius: 4px; }
p.facts { opacity: .75; }
"""


def _page(rows: Sequence[Row], names: Sequence[Sequence[tuple[str, str]]], facts: str) -> str:
    parts = []
    for section in dict.fromkeys(row.section for row in rows):
        of_section = [
            (row, cells) for row, cells in zip(rows, names, strict=True) if row.section == section
        ]
        heads = "".join(f"<th>{html.escape(head)}</th>" for head, _ in of_section[0][1])
        lines = [f"<h2>{html.escape(SECTIONS[section])}</h2>\n<table>\n<tr>{heads}</tr>"]
        for row, cells in of_section:
            prompt = html.escape(row.prompt) or "(no prompt)"
            images = "".join(
                f'<td><img src="{src}" alt="{html.escape(head)}"></td>' for head, src in cells
            )
            lines.append(
                f'<tr>{images}</tr>\n<tr><td class="prompt" '
                f'colspan="{len(cells)}">{prompt}</td></tr>'
            )
        parts.append("\n".join(lines) + "\n</table>")
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>zeroconv gallery</title>\n<style>{_STYLE}</style>\n<h1>zeroconv gallery</h1>\n"
        "<p>Each hint was drawn from the picture at its left. The controlled pictures were made "
        "from the hint and "
        "the prompt below them; the uncontrolled one from the prompt alone, with the same seed as "
        "the first.</p>\n"
        f'<p class="facts">{html.escape(facts)}</p>\n' + "\n".join(parts) + "\n</html>\n"
    )


def contact_sheet(rows: Sequence[Row], cell: int = 128, gap: int = 6) -> Image.Image:
    """All rows on one picture, with the section above and the prompt below each row."""
    margin, title, line = 16, 58, 24
    sections = list(dict.fromkeys(row.section for row in rows))
    columns = max(len(_cells(row)) for row in rows)
    width = 2 * margin + columns * (cell + gap)
    height = 2 * margin + len(sections) * title + len(rows) * (cell + line + gap)
    sheet = Image.new("RGB", (width, height), "white")
    pen, big, small = ImageDraw.Draw(sheet), ImageFont.load_default(17), ImageFont.load_default(12)
    y = margin
    for section in sections:
        pen.text((margin, y + 8), SECTIONS[section], fill="black", font=big)
        y += title
        first = next(row for row in rows if row.section == section)
        for i, (head, _) in enumerate(_cells(first)):
            pen.text((margin + i * (cell + gap), y - 18), head, fill="#777777", font=small)
        for row in (row for row in rows if row.section == section):
            for i, (_, image) in enumerate(_cells(row)):
                thumb = image.convert("RGB").resize((cell, cell), Image.Resampling.LANCZOS)
                sheet.paste(thumb, (margin + i * (cell + gap), y))
            pen.text(
                (margin, y + cell + 4), row.prompt or "(no prompt)", fill="#444444", font=small
            )
            y += cell + line + gap
    return sheet
