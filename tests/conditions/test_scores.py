"""Scores by closed forms, and against other libraries where they have the same measure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import jaccard_score

from zeroconv import playroom
from zeroconv.conditions import CONDITIONS, edge_f1, maps, pose, scores
from zeroconv.conditions.scores import METRICS, grey

RNG = np.random.default_rng(0)


def line(at: int) -> np.ndarray:
    edges = np.zeros((32, 32), np.uint8)
    edges[:, at] = 255
    return edges


def test_edge_f1_by_closed_forms():
    assert edge_f1(line(5), line(5), 0) == 1
    assert edge_f1(line(5), line(6), 0) == 0 and edge_f1(line(5), line(6), 1) == 1
    assert edge_f1(line(5), line(7), 1) == 0
    both = np.maximum(line(5), line(20))
    # all that was asked for is there (recall 1), half of what is there was asked for
    # (precision 1/2): F1 = 2/3
    assert edge_f1(line(5), both, 0) == pytest.approx(2 / 3)
    assert edge_f1(both, line(5), 0) == pytest.approx(2 / 3)
    empty = np.zeros((32, 32), np.uint8)
    assert (
        edge_f1(empty, empty) == 1 and edge_f1(line(5), empty) == 0 and edge_f1(empty, line(5)) == 0
    )
    with pytest.raises(ValueError, match="alike"):
        edge_f1(empty, empty[:16])
    # all below the threshold: they would agree, empty
    for small in (line(5) // 255, line(5) > 0, line(5) / 255):
        with pytest.raises(ValueError, match=r"not 0 and 1|uint8"):
            edge_f1(small, line(9) // 255)
    with pytest.raises(ValueError, match="nothing to compare"):
        edge_f1(empty[:0], empty[:0])


def test_f1_of_a_box_shifted_by_one_pixel():
    """An outline of 10 × 10 (36 pixels) against itself one to the right: 18 of them coincide, all
    are within one.
    """
    box = np.zeros((32, 32), np.uint8)
    box[5:15, 5:15] = 255
    box[6:14, 6:14] = 0
    score = scores.score_edges(box, np.roll(box, 1, axis=1))
    assert score["f1"] == pytest.approx(18 / 36) and score["f1_1px"] == 1


def noisy(size: int = 200) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:size, :size]
    a = (127 + 100 * np.sin(x / 9) * np.cos(y / 13)).astype(np.uint8)
    return a, np.clip(a + RNG.normal(0, 25, a.shape), 0, 255).astype(np.uint8)


def test_soft_scores_agree_with_scikit_image_and_torchmetrics():
    a, b = noisy()
    assert scores.score_soft(a, b)["psnr"] == pytest.approx(
        peak_signal_noise_ratio(a, b, data_range=255)
    )
    luminance, contrast = grey._ssim_terms(a.astype(float), b.astype(float))
    theirs = structural_similarity(
        a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert float((luminance * contrast).mean()) == pytest.approx(theirs, abs=2e-3)
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure as torch_ms_ssim,
    )

    x, y = (torch.from_numpy(m.astype(np.float32))[None, None] for m in (a, b))
    assert scores.ms_ssim(a, b) == pytest.approx(
        float(torch_ms_ssim(x, y, data_range=255.0)), abs=5e-3
    )


def test_soft_scores_at_their_ends():
    a, b = noisy(64)
    assert scores.score_soft(a, a) == {"ms_ssim": pytest.approx(1.0), "psnr": 60.0}
    assert scores.ms_ssim(a, b) < 0.95 and scores.ms_ssim(a, 255 - a) < 0.1
    flat = np.zeros((40, 40), np.uint8)
    assert (
        scores.ms_ssim(flat, flat) == pytest.approx(1.0) and scores.ms_ssim(flat, flat + 255) < 0.01
    )
    # 0 − 255 does not wrap round to 1
    assert scores.score_soft(flat, flat + 255)["psnr"] == pytest.approx(0.0)
    assert scores.score_soft(flat + 1, flat)["psnr"] == scores.score_soft(flat, flat + 1)["psnr"]
    assert scores.ms_ssim(a[:9, :9], b[:9, :9]) < 1  # smaller than the window
    with pytest.raises(ValueError, match="uint8"):
        scores.score_soft(a / 255, b / 255)  # in 0–1 they would be alike, black


def test_depth_scores_by_closed_forms():
    depth = RNG.uniform(2, 8, (16, 16))
    same = scores.score_depth(depth, depth)
    assert same == {"delta1": 1.0, "si_rmse": 0.0}
    double = scores.score_depth(depth, 2 * depth)
    assert double["delta1"] == 0 and double["si_rmse"] == pytest.approx(0, abs=1e-12)
    assert (
        scores.score_depth(depth, 1.24 * depth)["delta1"] == 1
        and scores.score_depth(depth, 1.26 * depth)["delta1"] == 0
    )
    half = depth.copy()
    half[:8] *= np.e
    # logs differ by 0 and 1, half each
    assert scores.score_depth(depth, half)["si_rmse"] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="above 0"):
        scores.score_depth(depth, 0 * depth)
    with pytest.raises(ValueError, match="no numbers"):
        scores.score_depth(depth, depth * np.nan)


def test_a_prediction_is_never_brought_to_the_labels_range():
    """A published protocol scales labels by their minimum and maximum and predictions by their
    maximum alone.
    """
    truth = np.linspace(4, 8, 64).reshape(8, 8)
    shifted = truth - 3  # the same order, other depths: wrong, and it must stay wrong
    assert scores.score_depth(truth, shifted)["delta1"] == 0
    hint, other = maps.depth_to_hint(truth), maps.depth_to_hint(shifted)
    decode = CONDITIONS["depth"].decode
    assert scores.score_depth(decode(hint), decode(other))["delta1"] < 0.1
    assert scores.score_depth(decode(hint), truth)["delta1"] == 1


def test_inverse_depth_by_closed_forms():
    hint = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert scores.score_inverse_depth(hint, hint) == {"rmse": 0}
    assert scores.score_inverse_depth(hint // 2, hint // 2 + 51)["rmse"] == pytest.approx(0.2)
    assert scores.score_inverse_depth(hint, 255 - hint) == scores.score_inverse_depth(
        255 - hint, hint
    )
    # label by minimum and maximum, prediction by its maximum alone: half the range stays
    # between them, as it must
    label, prediction = np.linspace(0, 1, 64).reshape(8, 8), np.linspace(0.5, 1, 64).reshape(8, 8)
    assert scores.score_inverse_depth(label, prediction)["rmse"] == pytest.approx(
        float(np.sqrt(np.mean((np.linspace(0.5, 0, 64)) ** 2)))
    )
    with pytest.raises(ValueError, match="one scale"):
        scores.score_inverse_depth(hint, hint / 255)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        scores.score_inverse_depth(label, prediction * 2)


def rotation(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


@pytest.mark.parametrize("degrees", [0, 0.01, 10, 20, 90, 180])
def test_turned_normals_are_off_by_the_angle_they_were_turned(degrees):
    normals = np.zeros((6, 5, 3))
    normals[..., 2] = 1
    score = scores.score_normals(normals, normals @ rotation(degrees).T)
    assert score["angle"] == pytest.approx(degrees, abs=1e-6)
    assert score["within_11"] == float(degrees < 11.25)
    # to read none gains nothing
    assert scores.score_normals(normals, 0 * normals) == {"angle": 180, "within_11": 0}
    normals[0] = 0  # no normal there: not scored
    assert scores.score_normals(normals, np.ones((6, 5, 3)))["angle"] == pytest.approx(
        np.degrees(np.arccos(3**-0.5))
    )


def test_segmentation_by_a_confusion_matrix_made_by_hand():
    truth = np.array([[0, 0, 0, 1], [1, 1, 2, 255]])
    read = np.array([[0, 0, 1, 1], [1, 0, 2, 0]])
    score = scores.score_segmentation(truth, read, 4)
    # class 0: 2 of 4, class 1: 2 of 4, class 2: 1 of 1, class 3: never there
    assert score["miou"].tolist() == [[2, 2, 1, 0], [4, 4, 1, 0]]
    assert score["accuracy"] == pytest.approx(5 / 7)
    a, b = RNG.integers(0, 5, (2, 40, 40))
    shares = np.divide(*scores.score_segmentation(a, b, 5)["miou"])
    assert shares == pytest.approx(jaccard_score(a.ravel(), b.ravel(), average=None))
    with pytest.raises(ValueError, match="Class 7"):
        scores.score_segmentation(truth, read + 5, 4)
    with pytest.raises(ValueError, match="Class -1"):
        scores.score_segmentation(truth, read - 1, 4)
    with pytest.raises(ValueError, match="integers"):
        scores.score_segmentation(truth, read / 2, 4)
    with pytest.raises(ValueError, match="Every pixel"):
        scores.score_segmentation(0 * truth + 255, read, 4)


@pytest.fixture(scope="module")
def person() -> np.ndarray:
    return playroom.render(9_000_005).keypoints[0]


def read_as(person: np.ndarray, confidence: float = 0.9) -> np.ndarray:
    read = person.copy()
    read[:, 2] = confidence
    return read


def pck(score: dict) -> float:
    return float(score["pck"][0, 0] / score["pck"][1, 0])


def test_poses_by_closed_forms(person):
    same = scores.score_pose([person], [read_as(person)])
    assert pck(same) == 1 and scores.average_precision(same["oks_ap"]) == pytest.approx(1)
    assert scores.oks(person, person) == 1
    size = max(scores.box_of(person))
    for share, right in ((0.099, 1.0), (0.101, 0.0)):
        moved = read_as(person + np.float32([share * size, 0, 0]))
        assert pck(scores.score_pose([person], [moved])) == right
    nobody = scores.score_pose([person], [])
    assert pck(nobody) == 0 and scores.average_precision(nobody["oks_ap"]) == 0
    empty = scores.score_pose([], [])
    unread = read_as(person)
    # two joints were read; the others' place holders happen to lie where they should
    unread[2:, 2] = 0
    visible = person[:, 2] == 2
    assert pck(scores.score_pose([person], [unread])) == visible[:2].sum() / visible.sum()
    assert scores.oks(person, unread) == pytest.approx(
        (person[:2, 2] > 0).sum() / (person[:, 2] > 0).sum()
    )
    with pytest.raises(ValueError, match="OpenPose"):
        scores.score_pose([person], [person[:17]])
    with pytest.raises(ValueError, match="no number"):
        scores.score_pose([person], [person * np.nan])
    assert empty["oks_ap"].shape == (0, 12) and np.isnan(scores.average_precision(empty["oks_ap"]))


def test_object_keypoint_similarity_by_hand():
    """One joint of eighteen off by d, in a box of 30 × 80: (17 + exp(−d² / (2 · 30 · 80 · (2σ)²)))
    / 18, COCO's σ.
    """
    person = np.zeros((18, 3))
    person[:, 2] = 2
    person[:, 0], person[:, 1] = np.linspace(0, 30, 18), np.linspace(0, 80, 18)
    sigmas = {
        0: 0.026,
        1: 0.079,
        2: 0.079,
        6: 0.072,
        7: 0.062,
        8: 0.107,
        12: 0.087,
        13: 0.089,
        15: 0.025,
        17: 0.035,
    }
    for joint, sigma in sigmas.items():
        moved = read_as(person)
        moved[joint, 1] += 3
        expected = (17 + np.exp(-9 / (2 * 30 * 80 * (2 * sigma) ** 2))) / 18
        assert scores.oks(person, moved) == pytest.approx(expected)
    hidden = person.copy()
    hidden[0, 2] = 0  # the nose is outside: where it was read does not matter
    moved = read_as(person)
    moved[0, :2] += 500
    assert scores.oks(hidden, moved) == 1


def test_a_mirrored_pose_is_a_wrong_one(person):
    """Left and right exchanged at the same places: joints near the middle stay right, arms and legs
    do not.
    """
    swapped = read_as(person[list(pose.MIRRORED)])
    assert pck(scores.score_pose([person], [swapped])) < 0.7
    assert scores.oks(person, swapped) < 0.6


def test_people_are_matched_once_each(person):
    other = person + np.float32([40, 0, 0])
    both = scores.score_pose([person, other], [read_as(other, 0.8), read_as(person, 0.9)])
    assert pck(both) == 1 and scores.average_precision(both["oks_ap"]) == pytest.approx(1)
    twice = scores.score_pose([person], [read_as(person, 0.9), read_as(person, 0.8)])
    # the false second one comes after full recall, so the average precision does not fall;
    # before it, it does
    assert scores.average_precision(twice["oks_ap"]) == pytest.approx(1)
    false_first = scores.score_pose([person], [read_as(other, 0.95), read_as(person, 0.9)])
    assert scores.average_precision(false_first["oks_ap"]) == pytest.approx(0.5)
    one_of_two = scores.score_pose([person, other], [read_as(person)])
    assert pck(one_of_two) == pytest.approx(0.5) and scores.average_precision(
        one_of_two["oks_ap"]
    ) == pytest.approx(51 / 101)


def test_colour_scores_do_not_wrap_around():
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert (
        scores.score_pixels(black, white)["rmse"] == scores.score_pixels(white, black)["rmse"] == 1
    )
    assert scores.score_pixels(black, white)["lab"] == pytest.approx(100, abs=0.1)
    assert scores.score_pixels(white, white) == {"rmse": 0, "lab": 0}
    a, b = np.full((4, 4, 3), 10, np.uint8), np.full((4, 4, 3), 30, np.uint8)
    assert (
        scores.score_pixels(a, b)["rmse"]
        == pytest.approx(20 / 255)
        == scores.score_pixels(b, a)["rmse"]
    )


def test_every_figure_is_explained():
    scene = playroom.render(9_000_005)
    image = np.asarray(scene.image)
    for condition in CONDITIONS.values():
        if condition.name == "pose":
            scored = condition.score(scene.keypoints, scene.keypoints)
        elif condition.needs_weights:
            truth = (
                np.where(scene.segmentation == playroom.CLASSES.index("person"), 255, 0).astype(
                    np.uint8
                )
                if condition.name == "person"
                else getattr(scene, condition.name)
            )
            scored = condition.score(truth, truth)
        else:
            hint = condition.draw(image)
            decoded = condition.decode(hint)
            scored = condition.score(decoded, image if condition.channels == 4 else decoded)
        assert scored and set(scored) <= set(METRICS)
        for name, value in scored.items():
            assert isinstance(value, float) == (METRICS[name].kind == "mean")
