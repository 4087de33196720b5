"""Nearest semi-orthogonal matrices by Newton–Schulz iteration, for Muon (Jordan et al. 2024).

Both functions compute the same up to rounding: one matrix at a time, or many of one shape together.
"""

from __future__ import annotations

from torch import Tensor, addmm, baddbmm

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic polynomial, Jordan et al. 2024
ITERATIONS = 5


def orthogonalise(matrix: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """`matrix` (rows, columns) → the nearest semi-orthogonal one, approximately: all singular
    values near 1.

    In float32: on CPUs without matrix units bfloat16 took 1.6 times as long on the sizes of a small
    UNet.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).contiguous()
    x = x / (x.norm() + 1e-7)

    for _ in range(iterations):
        gram = x @ x.T
        x = addmm(x, addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)

    return x.T if tall else x


def orthogonalise_many(matrices: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """(k, rows, columns) → `orthogonalise` of each.

    The iteration runs on Gram matrices. For a filter of 128 × 1152 that takes a third of the
    arithmetic, as only the first and the last product touch the long side.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)

    gram = x @ x.mT
    factor = None  # the product of all polynomials so far: (k, n, n)

    for i in range(iterations):
        step = baddbmm(gram, gram, gram, beta=b, alpha=c)
        step.diagonal(dim1=1, dim2=2).add_(a)
        factor = step if factor is None else step @ factor
        if i + 1 < iterations:
            gram = step @ gram @ step

    x = factor @ x  # type: ignore[operator]
    return x.mT if tall else x
