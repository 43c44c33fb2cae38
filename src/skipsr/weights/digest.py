"""A hash of what a network was loaded with."""

import hashlib

import torch
from torch import nn


def network_digest(network: nn.Module) -> str:
    """Of the names, shapes, dtypes and values of all its tensors, wherever they are."""
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        held = value.detach().contiguous().cpu()
        found.update(f"{name} {tuple(held.shape)} {held.dtype}".encode())
        found.update(held.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
