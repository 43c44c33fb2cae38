"""Where networks are put to run, and in which form."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Device and number formats of a network."""

    device: torch.device
    dtype: torch.dtype  # of the parameters; buffers keep theirs, so that constants stay exact
    exact: tuple[str, ...] = ()  # parameters whose names begin so stay in float32

    def put(self, network: nn.Module) -> None:
        """Move a network, tensor by tensor; kernels channels last where that is faster.

        Quantised matrices are buffers, of codes: they are moved as they are.
        """
        for name, parameter in network.named_parameters():
            dtype = torch.float32 if name.startswith(self.exact) else self.dtype
            value = parameter.data.to(self.device, dtype)
            if value.ndim == 4:
                value = value.contiguous(memory_format=torch.channels_last)
            elif value.ndim == 5:
                value = value.contiguous(memory_format=torch.channels_last_3d)
            parameter.data = value
        network.to(self.device)
