"""Tensors seen as numbers of 16 bytes, which are copied and gathered faster than smaller ones."""

import torch
from torch import Tensor


def in_pieces(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two tensors `... c` with `c` as so many pieces, or as they are where that does not go up."""
    if a.dtype == b.dtype and _fits(a) and _fits(b):
        return a.view(torch.complex128), b.view(torch.complex128)
    return a, b


def _fits(x: Tensor) -> bool:
    each = 16 // x.element_size()
    steps = (*x.stride()[:-1], x.shape[-1], x.storage_offset())
    if x.device.type == "mps":  # it has no such numbers
        return False
    return x.stride(-1) == 1 and not any(step % each for step in steps)
