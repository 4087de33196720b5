"""Contact sheets with words: rows of equal pictures, a label before each row, a caption under a picture."""

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
    """Rows of (label, pictures) under column heads, as one JPEG; None leaves a place empty. `captions`: a row each."""
    columns = max(len(row[1]) for row in rows)
    head = 16 if heads else 0
    below = 14 if captions else 0
    step = size + below + GAP
    canvas = Image.new("RGB", (label_width + columns * (size + GAP), head + len(rows) * step), "white")
    draw, font, small = ImageDraw.Draw(canvas), ImageFont.load_default(12), ImageFont.load_default(10)
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
                canvas.paste(picture.convert("RGB").resize((size, size), Image.Resampling.LANCZOS), (left, top))
            if captions and x < len(captions[y]):
                draw.text((left, top + size), captions[y][x], "black", small)
    with atomic_write(path) as temporary:
        canvas.save(temporary, quality=88)
    return canvas
