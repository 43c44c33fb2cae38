"""Networks that are made on the meta device, for the shapes of their tensors."""

import torch


def shapes_alone() -> bool:
    """Whether tensors made here hold no numbers, so that starting values need not be computed.

    Arithmetic on the meta device loads torch's compilers, which takes longer than all the rest of a
    command's start.
    """
    return torch.get_default_device().type == "meta"
