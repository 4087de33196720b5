"""The embedded base from a picture: an object repainted in another colour under its mask, with the
canny control; and a second pass at twice the size, against plain enlarging.

python -m benchmarks.quality.repaint [--count 24]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
from numpy import ndarray
from PIL import Image

from benchmarks.common import PICTURES, sheet, write_result
from zeroconv.backbones import Backbone, load_backbone
from zeroconv.conditions import annotate, edge_f1
from zeroconv.control import ControlNet
from zeroconv.generation import Control, generate
from zeroconv.playroom import COLOURS, Scene, caption_of, render, render_spec, split_seeds

AROUND = 3  # pixels of the mask around an object
STEPS = 20


def masked_scenes(count: int) -> list[tuple[Scene, ndarray, str]]:
    """Held-out scenes, the mask (H, W) of the largest object, and a prompt that gives it another
    colour.
    """
    chosen = []
    for seed in split_seeds("val", 20 * count):
        scene = render(seed)
        sizes = np.bincount(scene.instances[scene.instances > 0].ravel())
        if not len(sizes) or not 300 < sizes.max() < 4000:
            continue
        number = int(sizes.argmax())
        mask = cv2.dilate(
            (scene.instances == number).astype(np.uint8), np.ones((2 * AROUND + 1,) * 2)
        )
        thing = scene.objects[number - 1]
        others = [name for name in COLOURS if name != thing.colour]
        objects = list(scene.objects)
        objects[number - 1] = replace(thing, colour=others[seed % len(others)])
        chosen.append((scene, mask > 0, caption_of(replace(scene.spec, objects=tuple(objects)))))
        if len(chosen) == count:
            break
    return chosen


def f1(hint: ndarray, picture: Image.Image, inside: ndarray) -> float:
    """F1 of edge pixels within one pixel, those inside the mask alone."""
    read = np.asarray(annotate("canny", picture).convert("L"))
    return edge_f1(np.where(inside, hint, 0), np.where(inside, read, 0))


def decoded(backbone: Backbone, pictures: Sequence[ndarray]) -> list[Image.Image]:
    """Pictures through the autoencoder: the best that any picture of the base can be."""
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 127.5 - 1
    z = backbone.latents_from_moments(backbone.encode_image(x), sample=False)
    made = backbone.decode_latents(z).permute(0, 2, 3, 1).mul(255).round().byte().numpy()
    return [Image.fromarray(one) for one in made]


def repaint(backbone: Backbone, control: ControlNet, count: int) -> tuple[list[list], list]:
    """Rows of the table, and rows of pictures."""
    scenes = masked_scenes(count)
    pictures = [scene.image for scene, _, _ in scenes]
    masks = [Image.fromarray(mask.astype(np.uint8) * 255) for _, mask, _ in scenes]
    hints = [annotate("canny", picture) for picture in pictures]
    prompts = [prompt for _, _, prompt in scenes]
    request = {"image": pictures, "mask": masks, "seed": 0, "steps": STEPS}
    made = {
        "with control": generate(backbone, prompts, [Control(control, hints)], **request),
        "without control": generate(backbone, prompts, **request),
        "ceiling (VAE)": decoded(backbone, [np.asarray(scene.image) for scene, _, _ in scenes]),
    }
    scores, outside = {}, 0
    for name, results in made.items():
        greys = [np.asarray(hint.convert("L")) for hint in hints]
        each = zip(greys, results, scenes, strict=True)
        scores[name] = float(np.mean([f1(g, r, mask) for g, r, (_, mask, _) in each]))
    for result, (scene, mask, _) in zip(made["with control"], scenes, strict=True):
        apart = np.abs(np.asarray(result).astype(int) - np.asarray(scene.image).astype(int))
        outside = max(outside, int(apart[~mask].max()))
    ceiling = scores["ceiling (VAE)"]
    rows = [[f"repaint, {k}", f"{v:.3f}", f"{v / ceiling:.0%}"] for k, v in scores.items()]
    rows.append(["repaint, largest change outside the mask, of 255", outside, ""])
    shown = [pictures, hints, masks, made["with control"], made["without control"]]
    return rows, [[column[i] for column in shown] for i in range(min(4, count))]


def second_pass(backbone: Backbone, control: ControlNet, count: int) -> tuple[list[list], list]:
    """Edges of pictures of twice the size against the hint of that size: rows of the table, and
    rows of pictures.
    """
    scenes = [render(seed) for seed in split_seeds("val", count)]
    large = [annotate("canny", render_spec(s.spec, 256).image) for s in scenes]
    small = [annotate("canny", s.image) for s in scenes]
    prompts = [caption_of(scene.spec) for scene in scenes]
    first = generate(backbone, prompts, [Control(control, small)], seed=0, steps=STEPS)
    plain = [picture.resize((256, 256), Image.Resampling.LANCZOS) for picture in first]
    made = {"plain enlarging (Lanczos)": plain}
    for upscaler in ("latent", "lanczos"):
        made[f"second pass ({upscaler})"] = generate(
            backbone, prompts,
            [Control(control, small, passes="low"), Control(control, large, passes="high")],
            seed=0, steps=STEPS, hires=2.0, hires_upscaler=upscaler, height=128, width=128,
        )  # fmt: skip
    everywhere = np.ones((256, 256), bool)
    rows = []
    for name, results in made.items():
        scores = [
            f1(np.asarray(hint.convert("L")), result, everywhere)
            for hint, result in zip(large, results, strict=True)
        ]
        rows.append([f"twice the size, {name}", f"{np.mean(scores):.3f}", ""])
    shown = [large, *made.values()]
    return rows, [[column[i] for column in shown] for i in range(min(3, count))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=24)
    count = parser.parse_args().count
    backbone = load_backbone("playroom")
    control = ControlNet.load("canny")
    rows, shown = repaint(backbone, control, count)
    sheet(shown, PICTURES / "repaint.png")
    more, shown = second_pass(backbone, control, count)
    rows += more
    sheet(shown, PICTURES / "hires.jpg")
    note = (
        f"Held-out playroom scenes, n = {count}, {STEPS} UniPC steps, cfg 4; F1 of canny edges "
        "within one pixel, of repainting those inside the mask alone; the hint of the second pass "
        "is drawn at its size."
    )
    command = f"python -m benchmarks.quality.repaint --count {count}"
    write_result("repaint", ["", "F1", "of ceiling"], rows, command, note)


if __name__ == "__main__":
    main()
