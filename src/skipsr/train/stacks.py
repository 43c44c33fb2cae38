"""Where a model's layers are, known by the contract alone: a transformer keeps them in `blocks`."""

from collections.abc import Sequence

from torch import nn


def transformers_of(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """Every transformer inside some modules, each once; a recurrent network has none."""
    found = dict.fromkeys(part for module in modules for part in module.modules())
    return [part for part in found if isinstance(getattr(part, "blocks", None), nn.ModuleList)]


def stack_of(transformer: nn.Module) -> nn.ModuleList:
    """The layers of a transformer, in order."""
    blocks = transformer.get_submodule("blocks")
    assert isinstance(blocks, nn.ModuleList)
    return blocks
