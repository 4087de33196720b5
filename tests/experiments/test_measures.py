"""The figures that experiments add to the package's own: they must tell real pictures from wrong
ones.
"""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from experiments import fig06_composition, fig11_ambiguous, following, measures
from experiments.fig05_guidance import SCALES, WAYS, settings
from zeroconv.evaluation.pairs import load_pairs
from zeroconv.generation.guidance import MODES


@pytest.fixture(scope="module")
def pairs():
    return load_pairs("playroom:test", "canny", 12, 128)


@pytest.fixture(scope="module")
def scenes(pairs):
    return measures.scenes_of(pairs)


@pytest.mark.slow
def test_measures_read_objects_and_colours_in_real_pictures_and_not_in_others(
    pairs, scenes
) -> None:
    real = [pair.image for pair in pairs]
    other = real[1:] + real[:1]
    for read in (measures.kinds_right, measures.colours_right):
        right, wrong = read(real, scenes), read(other, scenes)
        assert measures.ratio(right)["mean"] > 0.9
        assert measures.ratio(wrong)["mean"] < 0.6
        assert measures.ratio_apart(right, wrong)["low"] > 0
    people = measures.kinds_right(real, scenes, only="person")
    assert sum(s[1, 0] for s in people) == sum(
        thing.kind == "person" and (scene.instances == number).sum() >= measures.SHOWN
        for scene in scenes
        for number, thing in enumerate(scene.objects, start=1)
    )


def test_fidelity_of_the_picture_itself_is_one_and_anothers_hint_is_not(pairs) -> None:
    real = [pair.image for pair in pairs]
    same = measures.fidelity("canny", pairs, real, "f1_1px")
    other = measures.fidelity("canny", measures.shuffled(pairs), real, "f1_1px")
    assert measures.figure(same, "f1_1px")["mean"] == 1
    assert measures.better_by(same, other, "f1_1px")["low"] > 0.3
    # lower is better
    assert measures.better_by([5.0, 6.0], [9.0, 9.0], "angle")["mean"] == pytest.approx(3.5)


def test_tones_go_where_the_picture_goes(pairs) -> None:
    image = pairs[0].image
    for tone, enhancer in (("saturation", ImageEnhance.Color), ("contrast", ImageEnhance.Contrast)):
        weak, strong = (
            measures.tones(enhancer(image).enhance(factor))[tone] for factor in (0.5, 1.5)
        )
        assert weak < measures.tones(image)[tone] < strong
    assert measures.tones(Image.new("RGB", (8, 8), (255, 10, 10)))["clipped"] == 1
    assert measures.tones(Image.new("RGB", (8, 8), "grey"))["clipped"] == 0


def test_pictures_of_the_same_kind_are_nearer(pairs) -> None:
    real = [pair.image for pair in pairs]
    noise = [
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (128, 128, 3), np.uint8))
        for i in range(12)
    ]
    assert measures.likeness(noise, real)["mean"] > measures.likeness(real[:6], real[6:])["mean"]
    assert np.isnan(measures.likeness(real[:3], real)["mean"])


def test_every_guidance_is_tried_once() -> None:
    assert set(MODES) < set(WAYS)
    tried = settings()
    assert len(tried) == len(set(tried)) == 2 * (1 + len(WAYS) * len(SCALES))


@pytest.mark.parametrize("shape", fig11_ambiguous.SHAPES)
def test_a_drawn_shape_lies_in_the_picture_and_its_strokes_around_it(shape: str) -> None:
    hint, mask = fig11_ambiguous.draw_hint(shape, 3)
    strokes = np.asarray(hint)[..., 0] > 127
    assert hint.size == (128, 128) and 0.02 < mask.mean() < 0.25
    assert not (mask[0] | mask[-1] | mask[:, 0] | mask[:, -1]).any()
    ring = strokes & ~mask
    # nothing drawn inside would tell what it is
    assert ring.any() and (strokes & mask).sum() < 0.35 * mask.sum()
    again, _ = fig11_ambiguous.draw_hint(shape, 3)
    other, _ = fig11_ambiguous.draw_hint(shape, 4)
    assert hint.tobytes() == again.tobytes() != other.tobytes()


def test_how_answers_spread() -> None:
    assert fig11_ambiguous.entropy(["ball"] * 8) == 0
    assert fig11_ambiguous.entropy(["ball", "cube"] * 4) == 1
    assert fig11_ambiguous.undecided(["ball"] * 4 + ["ball", "cube", "ball", "ball"]) == 0.5
    assert "person in" in fig11_ambiguous.prompt_of("person", 0)
    assert fig11_ambiguous.prompt_of("ball", 1).replace(
        "ball", "cube"
    ) == fig11_ambiguous.prompt_of("cube", 1)


def test_the_rise_of_a_curve_is_between_a_fifth_and_four_fifths() -> None:
    assert following.rise([(0, 0.1), (15, 0.1), (30, 0.12), (45, 0.7), (60, 0.75)]) == (
        30,
        45,
    )
    assert following.rise([(0, 0.0), (10, 0.25), (20, 0.5), (30, 0.75), (40, 1.0)]) == (
        0,
        40,
    )
    flat = [(step, 0.3 + 0.02 * (-1) ** step) for step in range(20)]
    fell = [(step, value - (0.2 if step > 10 else 0)) for step, value in flat]
    assert following.hidden(run(flat)) and not following.hidden(run(fell))


def run(loss: list) -> dict:
    class Start:
        step = 10

    return {"start": Start, "loss": loss, "rise": (10, 12), "steps": 20}


def test_measures_name_a_hint_that_is_lost_to_the_other() -> None:
    """Scores near 0.9 with the own hint, near 0.2 without it; together, once both stay and once the
    first is lost.
    """
    rng = np.random.default_rng(0)

    def scores(first: float, second: float) -> dict:
        return {
            "fidelity": [list(rng.normal(first, 0.02, 40)), [near(second, rng) for _ in range(40)]]
        }

    for lost in (False, True):
        both = scores(0.4 if lost else 0.88, 0.88)
        one = {"first alone": scores(0.9, 0.3), "second alone": scores(0.3, 0.9)}
        one |= {"both, 1 and 1": both, "both, 0.5 and 0.5": both}
        conflict = {"first alone": scores(0.9, 0.2), "second alone": scores(0.2, 0.9)}
        results = {"own": one, "empty": one, fig06_composition.CONFLICT: conflict}
        gained, kept, same = fig06_composition.claims_of(("canny", "segmentation"), results)
        assert gained.agrees and same.agrees and kept.agrees != lost


def near(share: float, rng: np.random.Generator) -> np.ndarray:
    return np.array([[100 * share + rng.normal(0, 2)], [100.0]])
