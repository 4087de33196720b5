"""Latents as the tokens of a transformer that reads patches of 2 × 2 latents: FLUX, Qwen-Image."""

from __future__ import annotations

import torch
from torch import Tensor

PATCH = 2  # latents a side of a token


def pack(z: Tensor) -> Tensor:
    """(N, C, h, w) → (N, h/2 · w/2, 4C), row after row."""
    n, c, h, w = z.shape
    parts = z.reshape(n, c, h // PATCH, PATCH, w // PATCH, PATCH).permute(0, 2, 4, 1, 3, 5)
    return parts.reshape(n, -1, c * PATCH**2)


def unpack(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """The inverse of `pack`, for latents of `size` (h, w)."""
    n, _, c = tokens.shape
    rows, columns = size[0] // PATCH, size[1] // PATCH
    parts = tokens.reshape(n, rows, columns, c // PATCH**2, PATCH, PATCH)
    return parts.permute(0, 3, 1, 4, 2, 5).reshape(n, c // PATCH**2, *size)


def positions(size: tuple[int, int], device: torch.device) -> Tensor:
    """Of each token of latents of `size` (h, w): 0, row and column, (h/2 · w/2, 3), float32."""
    rows, columns = (torch.arange(side // PATCH, device=device) for side in size)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([torch.zeros_like(y), y, x], dim=-1).reshape(-1, 3).float()
