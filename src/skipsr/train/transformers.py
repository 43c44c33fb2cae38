"""The transformers of a model in training: where they are, their blocks, and copies of them."""

import copy
from collections.abc import Sequence

from torch import nn

from skipsr.backbones.trainable import Denoiser


def find_transformers(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """Every transformer inside some modules, each once; a recurrent network has none.

    A transformer is known by its `blocks`.
    """
    found = dict.fromkeys(part for module in modules for part in module.modules())
    return [part for part in found if isinstance(getattr(part, "blocks", None), nn.ModuleList)]


def blocks_of(transformer: nn.Module) -> nn.ModuleList:
    """The layers of a transformer, in order."""
    blocks = transformer.get_submodule("blocks")
    assert isinstance(blocks, nn.ModuleList)
    return blocks


def copy_transformer(model: Denoiser) -> Denoiser:
    """`model` with a copy of its transformer; everything else is shared with it.

    So begin the teacher of a distillation and a discriminator.
    """
    assert isinstance(model, nn.Module)
    own = {id(module) for module in model.part("transformer").modules()}
    shared = {id(child): child for child in model.children() if id(child) not in own}
    double = copy.deepcopy(model, shared)
    assert isinstance(double, Denoiser)
    return double
