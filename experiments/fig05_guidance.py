"""Figure 5: where control enters classifier-free guidance, with and without a prompt, at several
scales.

Without a prompt, control in both halves leaves nothing between them for guidance to strengthen;
control in the conditional half alone makes guidance strong; the paper weighs the connections by
resolution, 64 / h, to weaken it. No such weight is below 1, so the same weights divided by their
largest are tried too: nearly those of the released code. `python -m experiments.fig05_guidance
[--count 50]`
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from experiments import measures
from experiments.common import MAIN, Claim, maker_of, options, signed, span, write_result
from experiments.sheets import draw_sheet
from zeroconv.control import ControlNet
from zeroconv.evaluation.fidelity import prompts_of
from zeroconv.evaluation.metrics import paired_interval
from zeroconv.evaluation.pairs import load_pairs
from zeroconv.generation import Control
from zeroconv.generation.guidance import MODES

SCALES = (2.0, 4.0, 7.5)
DIVIDED = "resolution / 8"  # an eighth of the paper's weights
WAYS = (*MODES, DIVIDED)
PROMPTS = {"empty": "no prompt", "own": "own caption"}
SHOWN = 2  # scenes of the contact sheet

# prompt setting, mode, scale; scale 1 is no guidance, whatever the mode
Key = tuple[str, str, float]


def settings() -> list[Key]:
    rest = [(mode, scale) for mode in WAYS for scale in SCALES]
    return [(prompts, mode, scale) for prompts in PROMPTS for mode, scale in [("both", 1.0), *rest]]


def main() -> None:
    arguments = options(__doc__, 50, condition=("canny", "which of the shipped controls"))
    make, condition = maker_of(arguments), arguments.condition
    pairs = load_pairs("playroom:test", condition, arguments.count, make.backbone.default_size)
    net, metric = ControlNet.load(f"playroom-{condition}", backbone=make.backbone), MAIN[condition]
    hints, scenes = [pair.hint for pair in pairs], measures.scenes_of(pairs)
    real = [measures.tones(pair.image) for pair in pairs]
    images: dict[Key, list[Image.Image]] = {}
    results: dict[Key, dict[str, Any]] = {}
    rows = []
    for key in settings():
        prompts, mode, scale = key
        scales = [c.scale / 8 for c in net.connections] if mode == DIVIDED else None
        controls, guidance = (
            [Control(net, hints, connection_scales=scales)],
            "cond" if mode == DIVIDED else mode,
        )
        images[key] = make(prompts_of(pairs, prompts), controls, guidance=guidance, cfg=scale)
        it: dict[str, Any] = {
            "fidelity": measures.fidelity(condition, pairs, images[key], metric),
            "named": measures.colours_right(images[key], scenes) if prompts == "own" else None,
            "kinds": measures.kinds_right(images[key], scenes),
            "kid": measures.likeness(images[key], [pair.image for pair in pairs]),
            "tones": [measures.tones(image) for image in images[key]],
        }
        results[key] = it
        cells = [span(measures.figure(it["fidelity"], metric))]
        cells.append(span(measures.ratio(it["named"]), 2) if it["named"] else "–")
        cells += [span(measures.ratio(it["kinds"]), 2), span(it["kid"])]
        cells += [signed(shift(it, real, tone), digits) for tone, digits in TONES]
        rows.append([name_of(key), *cells])
        print(rows[-1][:2], flush=True)
    cells = [span(measures.ratio(read([pair.image for pair in pairs], scenes)), 2) for read in READ]
    rows.append(["real pictures", "1", *cells, "0", *("0" for _ in TONES)])
    draw(images, pairs, arguments.pictures / "fig05.jpg")
    columns = ["", f"{condition}, {metric}", "named colours", "objects recognised", "KID ↓"]
    columns += ["contrast", "saturation", "clipped"]
    note = (
        f"n = {arguments.count} test scenes, control `playroom-{condition}`, 12 UniPC steps. KID: "
        "to the real pictures, in the reader's features. Contrast (spread of CIELAB lightness), "
        "saturation (mean chroma) and clipped pixels (share): by how much they are above the real "
        "picture's. 95% intervals. Scale 1 is no guidance."
    )
    summary = {name_of(key): summary_of(it, real, metric) for key, it in results.items()}
    caption = (
        "fig05.jpg: the same hints, prompts and seeds under every guidance, scale 7.5 (the last "
        "rows: real pictures)"
    )
    write_result(
        "fig05",
        columns,
        rows,
        claims(images, results, metric),
        note=note,
        pictures=[caption],
        details=summary,
        maker=make,
        folder=arguments.out,
    )


READ = (measures.colours_right, measures.kinds_right)
TONES = (("contrast", 2), ("saturation", 2), ("clipped", 3))


def name_of(key: Key) -> str:
    prompts, mode, scale = key
    return f"{PROMPTS[prompts]}, " + ("no guidance" if scale == 1 else f"`{mode}`, scale {scale:g}")


def shift(it: dict[str, Any], base: list[dict[str, float]], tone: str) -> dict[str, float]:
    """By how much the pictures' tone is above that of others of the same scenes, with the paired
    interval.
    """
    return paired_interval([t[tone] for t in it["tones"]], [t[tone] for t in base])


def summary_of(it: dict[str, Any], real: list[dict[str, float]], metric: str) -> dict[str, Any]:
    named = {"named": measures.ratio(it["named"])} if it["named"] else {}
    tones = {tone: shift(it, real, tone) for tone, _ in TONES}
    figures = {
        "fidelity": measures.figure(it["fidelity"], metric),
        "kinds": measures.ratio(it["kinds"]),
    }
    return {**figures, "kid": it["kid"], **named, **tones}


def draw(images: dict[Key, list[Image.Image]], pairs: list, path: Any) -> None:
    columns = [("both", 1.0), *((mode, SCALES[-1]) for mode in WAYS)]
    rows = []
    for i in range(min(SHOWN, len(pairs))):
        for prompts, meaning in PROMPTS.items():
            made = [images[prompts, mode, scale][i] for mode, scale in columns]
            rows.append((meaning, [pairs[i].hint, *made, pairs[i].image]))
    heads = ["hint", "no guidance", *(f"{mode}, {SCALES[-1]:g}" for mode in WAYS), "real picture"]
    draw_sheet(rows, path, heads, label_width=88)


def claims(images: dict[Key, list], results: dict[Key, dict[str, Any]], metric: str) -> list[Claim]:
    # equal by construction since the sampler computes once what both halves share; that two
    # computed halves give the same is tests/generation/test_pipeline.py's to show
    none = [np.asarray(image, np.int16) for image in images["empty", "both", 1.0]]
    gaps = []
    for scale in SCALES:
        made = [np.asarray(image, np.int16) for image in images["empty", "both", scale]]
        gaps.append(max(int(np.abs(a - b).max()) for a, b in zip(none, made, strict=True)))

    def apart(a: Key, b: Key, what: str) -> dict[str, float]:
        if what == "fidelity":
            return measures.better_by(results[a][what], results[b][what], metric)
        return shift(results[a], results[b]["tones"], what)

    top = SCALES[-1]
    asked = [
        ("empty", "cond", "both"),
        *(("empty", mode, "cond") for mode in ("resolution", DIVIDED, "guess")),
    ]
    strong, tamed, divided, shrunk, captioned = (
        {
            tone: apart((prompts, a, top), (prompts, b, top), tone)
            for tone in ("saturation", "clipped")
        }
        for prompts, a, b in (*asked, ("own", "resolution", "cond"))
    )
    kept = apart(("empty", "resolution", top), ("empty", "cond", top), "fidelity")
    return [
        Claim(
            "without a prompt, control in both halves removes guidance altogether",
            f"pictures at scales {', '.join(f'{s:g}' for s in SCALES)} differ from those without "
            f"guidance by at most {max(gaps)} of 255 (computed once for both halves; that two "
            "computed halves give the same is a test)",
            max(gaps) <= 2,
        ),
        Claim(
            "without a prompt, control in the conditional half alone makes guidance very strong",
            f"at scale {top:g} {worded(strong)} over control in both halves",
            strong["saturation"]["low"] > 0 and strong["clipped"]["low"] > 0,
        ),
        Claim(
            "weighting by resolution, 64 / h, tames that",
            f"at scale {top:g} {worded(tamed)} against the conditional half with weights of 1",
            tamed["saturation"]["high"] < 0 and tamed["clipped"]["high"] < 0,
        ),
        Claim(
            "(our question) with a caption it does",
            f"at scale {top:g} {worded(captioned)} against the conditional half with weights of 1",
            captioned["saturation"]["high"] < 0 and captioned["clipped"]["high"] < 0,
        ),
        Claim(
            "(our question) the same weights divided by 8 tame that",
            f"at scale {top:g} {worded(divided)} against the conditional half with weights of 1",
            divided["saturation"]["high"] < 0 and divided["clipped"]["high"] < 0,
        ),
        Claim(
            "(of the released code, not of the text) weights 0.825^(12−i) tame that",
            f"at scale {top:g} {worded(shrunk)} against the conditional half with weights of 1",
            shrunk["saturation"]["high"] < 0 and shrunk["clipped"]["high"] < 0,
        ),
        Claim(
            "(our question) weighting by resolution keeps the hint followed",
            f"at scale {top:g}, no prompt, {metric} {signed(kept)} against the conditional half "
            "with weights of 1",
            kept["low"] > -0.02,
        ),
    ]


def worded(tone: dict[str, dict[str, float]]) -> str:
    return f"saturation {signed(tone['saturation'], 1)}, clipped pixels {signed(tone['clipped'])}"


if __name__ == "__main__":
    main()
