"""What the reader's heads are trained towards, and one loss for each."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from zeroconv.evaluation.reader import REACH, SIZE, STRIDE, Maps

CELLS = SIZE // STRIDE


def people_targets(
    joints: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """joints (N, P, 18, 3) → centre heat (N, h, w), offsets (N, 18, 2, h, w) in `REACH`, weights
    (N, 18, h, w).

    A person's centre is the middle of its box. Cells within two of it vote, the nearer the more.
    """
    n = len(joints)
    centre = np.zeros((n, CELLS, CELLS), np.float32)
    offsets = np.zeros((n, 18, 2, CELLS, CELLS), np.float32)
    weights = np.zeros((n, 18, CELLS, CELLS), np.float32)
    y, x = np.mgrid[:CELLS, :CELLS].astype(np.float32) * STRIDE + STRIDE / 2
    for i in range(n):
        for person in joints[i, : count[i]]:
            known = person[person[:, 2] > 0]
            if not len(known):
                continue
            cx, cy = (
                (known[:, 0].min() + known[:, 0].max()) / 2,
                (known[:, 1].min() + known[:, 1].max()) / 2,
            )
            heat = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * STRIDE**2))
            near = heat > np.maximum(centre[i], 0.1)  # where two people meet, the nearer middle
            centre[i] = np.maximum(centre[i], heat)
            for joint, (px, py, seen) in enumerate(person):
                offsets[i, joint, 0][near], offsets[i, joint, 1][near] = (
                    (px - x[near]) / REACH,
                    (py - y[near]) / REACH,
                )
                weights[i, joint][near] = heat[near] * (
                    1.0 if seen == 2 else 0.3 if seen == 1 else 0.0
                )
    return centre, offsets, weights


def losses_of(maps: Maps, truth: dict[str, Tensor]) -> dict[str, Tensor]:
    """One loss a head, weighed to similar size."""
    people = truth["weights"].sum().clamp_min(1.0)
    apart = (maps.joints - truth["joints"]).abs().sum(2)  # (N, 18, h, w)
    heat = truth["centre"]
    balance = 1 + 20 * heat  # a centre is one cell of a thousand
    return {
        "depth": 20 * nn.functional.l1_loss(maps.inverse_depth, truth["inverse_depth"]),
        "normal": 2 * (1 - (maps.normal * truth["normal"]).sum(1)).mean(),
        "classes": nn.functional.cross_entropy(maps.classes, truth["classes"]),
        "centre": 5
        * nn.functional.binary_cross_entropy_with_logits(maps.centre, heat, weight=balance),
        "joints": 4 * (apart * truth["weights"]).sum() / people,
    }
