"""A second transformer beside the one in training: a teacher, or what a discriminator starts as."""

import copy

from torch import nn

from skipsr.backbones.trainable import Denoiser


def twin(model: Denoiser) -> Denoiser:
    """A copy of `model` with a transformer of its own; everything else is shared with it."""
    assert isinstance(model, nn.Module)
    own = {id(module) for module in model.part("transformer").modules()}
    shared = {id(child): child for child in model.children() if id(child) not in own}
    double = copy.deepcopy(model, shared)
    assert isinstance(double, Denoiser)
    return double
