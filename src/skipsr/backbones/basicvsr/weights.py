"""The family's files: what is in them, how to know them, and networks made of them.

Our module names are those of BasicSR, so strict loading needs no map. Wrapped checkpoints are taken
apart by `weights.checkpoint_formats`, and mmediting's names are given back their originals here.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TypeVar

import torch

from skipsr.backbones.basicvsr.config import PRESETS, BasicVSRConfig, FlowConfig
from skipsr.backbones.basicvsr.flow import SPyNet
from skipsr.backbones.basicvsr.network import CALIBRATED, BasicVSR
from skipsr.weights.checkpoint_formats import Unwrapped, unwrap
from skipsr.weights.folder import WeightFiles
from skipsr.weights.identify import FileKind
from skipsr.weights.load import inventory, load_strictly
from skipsr.weights.meta import on_meta

T = TypeVar("T")
log = logging.getLogger(__name__)

_ROUTER, _CALIBRATION, _FLOW = "router_", "calibration", "spynet."
_CRISP = "crisp."  # before the names of the second training's parameters
_BUFFERS = ("mean", "std")  # of SPyNet: constants, which its own published file does not hold
_FLOW_KINDS = ("basicvsr flow network (SPyNet)", "basicvsr flow network (SPyNet) with mean and std")
_MMEDITING = {
    "backward_resblocks.": "backward_trunk.",
    "forward_resblocks.": "forward_trunk.",
    "upsample1.upsample_conv.": "upconv1.",
    "upsample2.upsample_conv.": "upconv2.",
}


def kinds() -> Iterator[FileKind]:
    """Every kind of file the family knows; small models come first, and at once."""
    for preset in reversed(PRESETS):
        yield from _kinds_of(preset, PRESETS[preset])
    yield from _flow_kinds()


@cache
def _flow_kinds() -> tuple[FileKind, ...]:
    """SPyNet by itself."""
    with on_meta():
        buffered = inventory(SPyNet(FlowConfig()))
    alone = {k: v for k, v in buffered.items() if k not in _BUFFERS}
    return tuple(FileKind(k, v) for k, v in zip(_FLOW_KINDS, (alone, buffered), strict=True))


@cache
def _kinds_of(preset: str, config: BasicVSRConfig) -> tuple[FileKind, ...]:
    """The files with a preset's network."""
    with on_meta():
        whole = inventory(BasicVSR(config))
    dense = {k: v for k, v in whole.items() if not k.startswith(_ROUTER) and k != _CALIBRATION}
    name = f"basicvsr:{preset} network"
    trained = (n for n in dense if n.rpartition(".")[2] not in _BUFFERS)
    crisp = {f"{_CRISP}{n}": dense[n] for n in trained}
    found = [
        FileKind(name, dense),
        FileKind(f"{name} with routers", whole),
        FileKind(f"{name} with detail", dense | crisp),
        FileKind(f"{name} with routers and detail", whole | crisp),
    ]
    if config.flow == FlowConfig():  # the one there are files of
        flowless = {k: v for k, v in dense.items() if not k.startswith(_FLOW)}
        found.append(FileKind(f"{name} without SPyNet", flowless))
    return tuple(found)


def normal_name(name: str) -> str:
    """Our name of a tensor in an unwrapped file; mmediting has others for convolutions."""
    level = re.fullmatch(r"(.*basic_module\.\d+\.basic_module)\.(\d+)\.conv\.(\w+)", name)
    if level:
        return f"{level[1]}.{2 * int(level[2])}.{level[3]}"  # a ReLU of ours has a number, too
    for theirs, ours in _MMEDITING.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def normalise(entries: Mapping[str, T]) -> Unwrapped[T]:
    """A file's tensors, or their shapes, under our names.

    A name whose new form is taken already stays as it is, and will not fit. Thresholds of routers
    that are not there are left out.
    """
    bare = unwrap(entries)
    names = {name: normal_name(name) for name in bare}
    renamed = {name if new in bare else new: bare[name] for name, new in names.items()}
    layout = bare.layout
    if renamed.keys() != bare.keys() and "mmediting" not in layout:
        layout = f"{layout}, mmediting names"
    if not any(name.startswith(_ROUTER) for name in renamed):
        renamed.pop(_CALIBRATION, None)
    return Unwrapped(renamed, layout)


def networks(preset: str, files: WeightFiles) -> BasicVSR:
    """The network as it is in the files, on the CPU; without routers where these hold none, and
    with `crisp` where they hold a second training.

    A file without SPyNet needs one of SPyNet beside it.

    Raises:
        WeightsError: when files are missing, damaged, ambiguous or do not fit the preset.
    """
    file = files.network(f"basicvsr:{preset}")
    tensors = normalise(file.tensors())
    log.info("%s: %s", file.path, tensors.layout)
    if file.kind == f"basicvsr:{preset} network without SPyNet":
        beside = files.with_beside()
        flow = beside.part(*_FLOW_KINDS)
        if flow is None:
            raise beside.lack(f"{_FLOW_KINDS[0]} for {file.path.name}")
        constants = dict(SPyNet(FlowConfig()).named_buffers())
        held = constants | normalise(flow.tensors())
        tensors |= {_FLOW + name: value for name, value in held.items()}
    with on_meta():
        model = BasicVSR(PRESETS[preset])
    names = [name for name in tensors if name.startswith(_CRISP)]
    model.crisp = {name.removeprefix(_CRISP): tensors.pop(name) for name in names}
    if not any(name.startswith(_ROUTER) for name in tensors):
        model.router_backward = model.router_forward = None
        tensors[_CALIBRATION] = torch.zeros(CALIBRATED, 2)
    load_strictly(model, tensors, f"basicvsr:{preset} ({file.path})")
    return model
