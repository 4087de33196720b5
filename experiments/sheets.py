"""Contact sheets with words: rows of equal pictures, a label before each row, a caption under a
picture.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from zeroconv.files import atomic_write

GAP = 4
Row = tuple[str, Sequence[Image.Image | None]]


def draw_sheet(
    rows: Sequence[Row],
    path: Path,
    heads: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    label_width: int = 108,
    size: int = 128,
) -> Image.Image:
    """Rows of (label, pictures) under column heads, as one JPEG; None leaves a place empty.
    `captions`: a row each.
    """
    columns = max(len(row[1]) for row in rows)
    head = 16 if heads else 0
    below = 14 if captions else 0
    step = size + below + GAP
    canvas = Image.new(
        "RGB", (label_width + columns * (size + GAP), head + len(rows) * step), "white"
    )
    draw, font, small = (
        ImageDraw.Draw(canvas),
        ImageFont.load_default(12),
        ImageFont.load_default(10),
    )
    for x, text in enumerate(heads):
        draw.text((label_width + x * (size + GAP), 1), text, "black", small)
    for y, (label, pictures) in enumerate(rows):
        top = head + y * step
        width = max(8, (label_width - 6) // 7)
        wrapped = "\n".join("\n".join(textwrap.wrap(line, width)) for line in label.splitlines())
        draw.multiline_text((2, top + 2), wrapped, "black", font, spacing=2)
        for x, picture in enumerate(pictures):
            left = label_width + x * (size + GAP)
            if picture is not None:
                canvas.paste(
                    picture.convert("RGB").resize((size, size), Image.Resampling.LANCZOS),
                    (left, top),
                )
            if captions and x < len(captions[y]):
                draw.text((left, top + size), captions[y][x], "black", small)
    with atomic_write(path) as temporary:
        canvas.save(temporary, quality=88)
    return canvas


_COLOURS = (
    "#3366cc",
    "#cc5533",
    "#339955",
    "#884499",
    "#997700",
    "#555555",
    "#008899",
    "#dd3388",
    "#88aa00",
    "#331177",
)


def draw_chart(
    panels: Sequence[tuple[str, dict[str, list[tuple[float, float]]]]], path: Path, across: str
) -> None:
    """Panels one below the other, each (title, name → points): lines over one common axis, as one
    PNG.
    """
    width, height, left, right, foot = 760, 220, 60, 150, 34
    scale = 2  # drawn larger and shrunk, for smooth lines
    canvas = Image.new("RGB", (scale * width, scale * height * len(panels)), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(12 * scale)
    everywhere = [x for _, curves in panels for points in curves.values() for x, _ in points]
    x0, x1 = min(everywhere), max(max(everywhere), min(everywhere) + 1)
    for number, (title, curves) in enumerate(panels):
        top = number * height
        values = [y for points in curves.values() for _, y in points]
        y0, y1 = min(0.0, *values), max(values, default=1.0)
        y1 = y1 if y1 > y0 else y0 + 1

        def pixel(
            x: float, y: float, top: int = top, y0: float = y0, y1: float = y1
        ) -> tuple[float, float]:
            inner = height - foot - 24
            return (
                scale * (left + (x - x0) / (x1 - x0) * (width - left - right)),
                scale * (top + 24 + (1 - (y - y0) / (y1 - y0)) * inner),
            )

        draw.line([pixel(x0, y0), pixel(x1, y0)], "#999999", scale)
        draw.line([pixel(x0, y0), pixel(x0, y1)], "#999999", scale)
        draw.text((scale * left, scale * (top + 4)), title, "black", font)
        for y in (y0, (y0 + y1) / 2, y1):
            draw.text((scale * 8, pixel(x0, y)[1] - 8 * scale), f"{y:.3g}", "black", font)
        for x in (x0, (x0 + x1) / 2, x1):
            draw.text(
                (pixel(x, y0)[0] - 10 * scale, scale * (top + height - foot + 4)),
                f"{x:g}",
                "black",
                font,
            )
        draw.text(
            (pixel(x1, y0)[0] + 24 * scale, scale * (top + height - foot + 4)),
            across,
            "black",
            font,
        )
        if len(curves) > len(_COLOURS):
            raise ValueError(
                f"{len(curves)} curves cannot be told apart by {len(_COLOURS)} colours"
            )
        for (name, points), colour, line in zip(
            curves.items(), _COLOURS, range(len(curves)), strict=False
        ):
            draw.line([pixel(*point) for point in points], colour, 2 * scale, joint="curve")
            draw.text(
                (scale * (width - right + 10), scale * (top + 24 + 17 * line)), name, colour, font
            )
    with atomic_write(path) as temporary:
        canvas.resize((width, height * len(panels)), Image.Resampling.LANCZOS).save(temporary)
