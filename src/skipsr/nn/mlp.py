"""Feed-forward layers. Parameter names are those of the published checkpoints."""

import torch.nn.functional as F
from torch import Tensor, nn

from skipsr.nn.fused import swiglu


def swiglu_width(dim: int, ratio: int = 4) -> int:
    """The hidden width: 2/3 of `ratio * dim`, rounded up to a multiple of 256."""
    return -(-int(2 * dim * ratio / 3) // 256) * 256


class SwiGLU(nn.Module):
    """`proj_out(silu(proj_in_gate(x)) * proj_in(x))` without biases."""

    def __init__(self, dim: int, ratio: int = 4) -> None:
        super().__init__()
        hidden = swiglu_width(dim, ratio)
        self.proj_in_gate = nn.Linear(dim, hidden, bias=False)
        self.proj_in = nn.Linear(dim, hidden, bias=False)
        self.proj_out = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj_out(swiglu(self.proj_in_gate(x), self.proj_in(x)))


class GELUMLP(nn.Module):
    """`proj_out(gelu(proj_in(x)))`, tanh approximation, with biases."""

    def __init__(self, dim: int, ratio: int = 4) -> None:
        super().__init__()
        self.proj_in = nn.Linear(dim, dim * ratio)
        self.proj_out = nn.Linear(dim * ratio, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj_out(F.gelu(self.proj_in(x), approximate="tanh"))
