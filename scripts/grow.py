"""Begin a larger network of skipvsr with what a smaller one has learned.

    python scripts/grow.py SMALLER OUT --model skipvsr:small

The larger network computes what the smaller one does, to the last bit or nearly: new channels are
read by new ones alone, and new blocks add nothing. What they read is random, so that they learn.
`skipsr train skipvsr-small --start OUT` goes on from there.
"""

import argparse
from pathlib import Path

import safetensors
import torch
from torch import Tensor, nn

from skipsr.backbones.basicvsr.blocks import ResidualBlock, Trunk
from skipsr.backbones.basicvsr.config import BasicVSRConfig
from skipsr.backbones.basicvsr.network import DIRECTIONS, BasicVSR
from skipsr.loading import load_networks
from skipsr.train.run import export

_SEED = 0  # of what new channels read


def grow(small: BasicVSR, config: BasicVSRConfig) -> BasicVSR:
    """A network of the larger configuration that computes what the small one does; no routers.

    Raises:
        ValueError: for a configuration that is not larger in channels and blocks alone.
    """
    before = small.config
    if (config.unshuffle, config.hr_feat, config.flow) != (
        before.unshuffle, before.hr_feat, before.flow,
    ) or config.num_feat < before.num_feat or config.num_block < before.num_block:  # fmt: skip
        raise ValueError("only more channels and more blocks can be added")
    torch.manual_seed(_SEED)
    large = BasicVSR(config)
    large.router_backward = large.router_forward = None
    large.spynet.load_state_dict(small.spynet.state_dict())
    features = torch.arange(before.num_feat)
    for which in DIRECTIONS:
        _grow_trunk(small.trunk(which), large.trunk(which), config.inputs, features)
    both = torch.cat((features, config.num_feat + features))
    _put(small.fusion, large.fusion, both)
    _put(small.conv_last, large.conv_last, features)
    return large


def _grow_trunk(old: Trunk, new: Trunk, inputs: int, features: Tensor) -> None:
    """Blocks of old spread over the new ones.

    Args:
        inputs: channels of a frame, which come before those of the state.
    """
    _put(old.main[0], new.main[0], torch.cat((torch.arange(inputs), inputs + features)))
    olds, news = list(old.blocks), list(new.blocks)
    places = {(i * len(news)) // len(olds): block for i, block in enumerate(olds)}
    for i, block in enumerate(news):
        if i in places:
            _put(places[i].conv1, block.conv1, features)
            _put(places[i].conv2, block.conv2, features)
        else:
            _silence(block)


def _silence(block: ResidualBlock) -> None:
    """Make a block add nothing."""
    with torch.no_grad():
        for parameter in block.conv2.parameters():
            parameter.zero_()


def _put(old: nn.Module, new: nn.Module, inputs: Tensor) -> None:
    """Old outputs come first and read as before, at their places among the new `inputs`."""
    assert isinstance(old, nn.Conv2d)
    assert isinstance(new, nn.Conv2d)
    outputs = old.out_channels
    with torch.no_grad():
        new.weight[:outputs] = 0
        new.weight[:outputs, inputs] = old.weight
        assert new.bias is not None
        assert old.bias is not None
        new.bias[:outputs] = old.bias


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    for name in ("smaller", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--model", required=True, help="such as skipvsr:small")
    args = parser.parse_args()
    with safetensors.safe_open(args.smaller, "pt") as file:
        small = load_networks(file.metadata()["model"], args.smaller)
    larger = load_networks(args.model, None)
    assert isinstance(small, BasicVSR)
    assert isinstance(larger, BasicVSR)
    export(grow(small, larger.config), args.out, {"model": args.model})


if __name__ == "__main__":
    main()
