"""Distances between sets of pictures, as pure functions of their features (N, D)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy import ndarray
from PIL import Image

from zeroconv.errors import UserError
from zeroconv.stopping import stop_if_asked


def frechet_distance(a: ndarray, b: ndarray) -> float:
    """Fréchet distance of two Gaussians fitted to features (N, D): FID (Heusel et al. 2017).

    ‖μa − μb‖² + tr(Σa + Σb − 2 (Σa^½ Σb Σa^½)^½), by symmetric eigenvalues in float64, with
    unbiased covariances. Few samples make it too large; with fewer than D compare only sets of one
    size.
    """
    _check(a, b)
    mean = ((a.mean(0, dtype=np.float64) - b.mean(0, dtype=np.float64)) ** 2).sum()
    first, second = (np.atleast_2d(np.cov(x.astype(np.float64), rowvar=False)) for x in (a, b))
    root = _root(first)
    cross = np.linalg.eigvalsh(root @ second @ root)
    return max(
        0.0,
        float(mean + np.trace(first) + np.trace(second) - 2 * np.sqrt(np.maximum(cross, 0)).sum()),
    )


def _root(matrix: ndarray) -> ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def kernel_distance(
    a: ndarray, b: ndarray, subsets: int = 0, size: int = 1000, seed: int = 0
) -> float:
    """Squared maximum mean discrepancy with the kernel (x·y / D + 1)³, unbiased: KID (Bińkowski et
    al. 2018).

    The whole sets at once, as the estimate is unbiased at any size; or the mean over `subsets`
    pairs of subsets of at most `size`, for sets whose N × N kernel does not fit into memory. It may
    be below 0 where the sets are alike.
    """
    _check(a, b)
    if subsets:
        rng = np.random.default_rng(seed)
        parts = ([x[rng.permutation(len(x))[:size]] for x in (a, b)] for _ in range(subsets))
        return float(np.mean([kernel_distance(x, y) for x, y in parts]))
    x, y = a.astype(np.float64), b.astype(np.float64)

    def kernel(p: ndarray, q: ndarray) -> ndarray:
        return (p @ q.T / p.shape[1] + 1) ** 3

    n, m = len(x), len(y)
    xx, yy = kernel(x, x), kernel(y, y)
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * kernel(x, y).mean())


def bootstrap(
    distance: Callable[[ndarray, ndarray], float],
    a: ndarray,
    b: ndarray,
    draws: int = 100,
    seed: int = 0,
) -> dict[str, float]:
    """The distance and a 95% interval from random halves of both sets, drawn without replacement.

    Drawing with replacement repeats samples, which pushes such distances up. A half drawn without
    replacement differs from its whole with variance σ²/(n/2) · (1 − 1/2) = σ²/n, which is just how
    the whole differs from the truth, so deviations are taken as they are; other shares m of n need
    √(m / (n − m)) (the jackknife that leaves out many: Shao & Wu 1989). Their own mean is
    subtracted first: halves are biased upwards more than wholes. A set of two has no parts that a
    distance could be taken of, so its limits are NaN.
    """
    value, rng = distance(a, b), np.random.default_rng(seed)
    if min(len(a), len(b)) < 3:
        return {"mean": value, "low": float("nan"), "high": float("nan")}
    sizes = [(max(2, len(x) // 2), len(x)) for x in (a, b)]
    scale = max((m / (n - m)) ** 0.5 for m, n in sizes)  # 1 for even sets, √2 for three samples

    def half(x: ndarray) -> ndarray:
        stop_if_asked()
        return x[rng.permutation(len(x))[: max(2, len(x) // 2)]]

    distances = np.array([distance(half(a), half(b)) for _ in range(draws)])
    # ranks by p (draws + 1): the usual interpolation is 8% too narrow at 50 draws
    low, high = np.percentile(scale * (distances - distances.mean()), [2.5, 97.5], method="weibull")
    return {"mean": value, "low": value + float(low), "high": value + float(high)}


def diversity(features: ndarray) -> ndarray:
    """features (groups, members, D) → mean distance between two members of each group,
    (groups,).
    """
    if features.ndim != 3 or features.shape[1] < 2:
        raise ValueError(
            f"Diversity needs features (groups, members ≥ 2, D), not {features.shape}."
        )
    x = features.astype(np.float64)
    apart = np.linalg.norm(x[:, :, None] - x[:, None], axis=-1)
    members = x.shape[1]
    return apart.sum((1, 2)) / (members * (members - 1))


def clean_resize(images: Sequence[Image.Image], size: int) -> ndarray:
    """Pictures at size × size, float32 (N, size, size, 3) in 0–255: bicubic with anti-aliasing, a
    channel at a time in float, so that nothing is rounded or clipped on the way (Parmar et al.
    2022).
    """
    parts = []
    for image in images:
        channels = [
            np.asarray(Image.fromarray(c).resize((size, size), Image.Resampling.BICUBIC))
            for c in np.moveaxis(np.asarray(image.convert("RGB"), np.float32), -1, 0)
        ]
        parts.append(np.stack(channels, -1))
    return np.clip(np.stack(parts), 0, 255)


def _check(a: ndarray, b: ndarray) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"Two sets of at least two features (N, D) are needed, not {a.shape} and {b.shape}."
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UserError(
            "a picture's features are no numbers (NaN or infinite): the network that reads them "
            "overflows."
        )
