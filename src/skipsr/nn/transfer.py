"""Copies between the host's memory and a device's, of which a card lets the host go on.

CUDA puts aside what is not pinned before it does so. Apple's GPUs read and write the host's memory
when they come to it, and that may hold something else by then: there the host waits.
"""

import torch
from torch import Tensor


def send(x: Tensor, device: torch.device) -> Tensor:
    """`x`, which is in the host's memory or there already, on a device."""
    return x.to(device, non_blocking=device.type == "cuda")


def copy_over(source: Tensor, target: Tensor) -> None:
    """Copy into `target`.

    The host's memory that takes part has to be pinned if one of them is on a card, and what is
    written there has come when a stream that it was queued in is waited for.
    """
    on_card = "cuda" in (source.device.type, target.device.type)
    target.copy_(source, non_blocking=on_card)
