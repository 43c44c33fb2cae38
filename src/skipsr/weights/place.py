"""Where networks are put to run, and in which form."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Device and number formats of a network."""

    device: torch.device
    dtype: torch.dtype  # of the parameters; buffers keep theirs, so that constants stay exact
    exact: tuple[str, ...] = ()  # parameters whose names begin so stay in float32

    def put(self, network: nn.Module) -> None:
        """Move a network, tensor by tensor; kernels channels last.

        Quantised matrices are buffers, of codes: they are moved as they are.
        """
        for name, parameter in network.named_parameters():
            dtype = torch.float32 if name.startswith(self.exact) else self.dtype
            parameter.data = channels_last(parameter.data.to(self.device, dtype))
        network.to(self.device)


def channels_last(weight: Tensor) -> Tensor:
    """Kernels of convolutions as their inputs lie in memory, others as they are."""
    if weight.ndim == 4:
        return weight.contiguous(memory_format=torch.channels_last)
    if weight.ndim == 5:
        return weight.contiguous(memory_format=torch.channels_last_3d)
    return weight
