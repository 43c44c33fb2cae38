"""The family's files: what is in them, how to know them, and networks made of them
(spec/skipvsr A3).

Our module names are those of BasicSR, so strict loading needs no map. Wrapped checkpoints are taken
apart by `weights.layout`, and mmediting's names are given back their originals here.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from skipsr.backbones.basicvsr.config import PRESETS, FlowConfig
from skipsr.backbones.basicvsr.flow import SPyNet
from skipsr.backbones.basicvsr.network import CALIBRATED, BasicVSR
from skipsr.errors import WeightsError
from skipsr.weights.identify import Kind, Match, identify, read_inventory
from skipsr.weights.layout import LaidOut, Table, unwrap
from skipsr.weights.load import inventory, load_strictly, read_tensors

T = TypeVar("T")
log = logging.getLogger(__name__)

_ROUTER, _CALIBRATION, _FLOW = "router_", "calibration", "spynet."
_BUFFERS = ("mean", "std")  # of SPyNet: constants, which its own published file does not hold
_FLOW_KINDS = ("basicvsr flow network (SPyNet)", "basicvsr flow network (SPyNet) with mean and std")
_SUFFIXES = (".safetensors", ".pth", ".pt")
_MMEDITING = {
    "backward_resblocks.": "backward_trunk.",
    "forward_resblocks.": "forward_trunk.",
    "upsample1.upsample_conv.": "upconv1.",
    "upsample2.upsample_conv.": "upconv2.",
}


@cache
def kinds() -> tuple[Kind, ...]:
    """Every kind of file the family knows."""
    found: list[Kind] = []
    with torch.device("meta"):
        for preset, config in PRESETS.items():
            whole = inventory(BasicVSR(config))
            dense = {k: v for k, v in whole.items() if not _is_routing(k)}
            known = dict(zip(_network_kinds(preset), (dense, whole), strict=True))
            if config.flow == FlowConfig():  # the one there are files of
                flowless = {k: v for k, v in dense.items() if not k.startswith(_FLOW)}
                known[_flowless_kind(preset)] = flowless
            found += [Kind(name, tensors) for name, tensors in known.items()]
        buffered = inventory(SPyNet(FlowConfig()))
    alone = {k: v for k, v in buffered.items() if k not in _BUFFERS}
    found += [Kind(k, v) for k, v in zip(_FLOW_KINDS, (alone, buffered), strict=True)]
    return tuple(found)


def normal_name(name: str) -> str:
    """Our name of a tensor in an unwrapped file; mmediting's convolutions and upsamplers have
    others."""
    level = re.fullmatch(r"(.*basic_module\.\d+\.basic_module)\.(\d+)\.conv\.(\w+)", name)
    if level:
        return f"{level[1]}.{2 * int(level[2])}.{level[3]}"  # a ReLU of ours has a number, too
    for theirs, ours in _MMEDITING.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def normalise(entries: Mapping[str, T], table: Table = "params") -> LaidOut[T]:
    """A file's tensors, or their shapes, under our names; see `unwrap` for `table`.

    A name whose new form is taken already stays as it is, and will not fit. Thresholds of routers
    that are not there are left out.
    """
    bare = unwrap(entries, table)
    names = {name: normal_name(name) for name in bare}
    renamed = {name if new in bare else new: bare[name] for name, new in names.items()}
    layout = bare.layout
    if renamed.keys() != bare.keys() and "mmediting" not in layout:
        layout = f"{layout}, mmediting names"
    if not any(name.startswith(_ROUTER) for name in renamed):
        renamed.pop(_CALIBRATION, None)
    return LaidOut(renamed, layout)


def read_model(preset: str, source: Path, table: Table = "params") -> BasicVSR:
    """The network as it is in a file or a folder, on the CPU; without routers where these hold
    none.

    Args:
        source: a file with a whole network, or a folder with one such file. A network without
            SPyNet needs a SPyNet file beside it in its folder.
        table: which weights of a BasicSR file to take, as trained or averaged.

    Raises:
        WeightsError: when files are missing, damaged, ambiguous or do not fit the preset.
    """
    model = _read(preset, source, table)
    if model.router_forward is None:
        log.warning("%s: no routers there, every block will be run", source)
    return model


def read_routed(preset: str, source: Path) -> BasicVSR:
    """The network as it is in a file or a folder, on the CPU and in float32, with its routers.

    Raises:
        WeightsError: when it has none, or files are missing, damaged, ambiguous or do not fit.
    """
    model = _read(preset, source, "params").float()
    if model.router_forward is None:
        raise WeightsError(f"{source}: no routers there; train them first, with a routing recipe")
    return model


def restore(preset: str, source: Path) -> BasicVSR:
    """The network to go on training, in float32; routers that no file holds start untrained.

    Raises:
        WeightsError: when files are missing, damaged, ambiguous or do not fit the preset.
    """
    model = _read(preset, source, "params").float()
    if model.router_forward is None:
        model.router_backward, model.router_forward = model.fresh_router(), model.fresh_router()
    return model


def _read(preset: str, source: Path, table: Table) -> BasicVSR:
    file, flow = _find(preset, source) if source.is_dir() else (source, None)
    entries = normalise(read_tensors(file), table)
    log.info("%s: %s", file, entries.layout)
    tensors = dict(entries)
    match = identify({k: tuple(v.shape) for k, v in tensors.items()}, kinds())
    if match is not None and match.exact and match.kind == _flowless_kind(preset):
        if flow is None:
            raise WeightsError(
                f"{file}: holds no flow network; give a folder with this file and one of SPyNet"
            )
        tensors |= {_FLOW + name: value for name, value in _read_flow(flow).items()}
    with torch.device("meta"):
        model = BasicVSR(PRESETS[preset])
    if not any(name.startswith(_ROUTER) for name in tensors):
        model.router_backward = model.router_forward = None
        tensors[_CALIBRATION] = torch.zeros(CALIBRATED, 2)
    load_strictly(model, tensors, f"basicvsr:{preset} ({file})")
    return model


def _read_flow(file: Path) -> dict[str, Tensor]:
    """All tensors of SPyNet from a file of its own."""
    constants = dict(SPyNet(FlowConfig()).named_buffers())
    return constants | normalise(read_tensors(file))


def _find(preset: str, folder: Path) -> tuple[Path, Path | None]:
    """The preset's network in a folder, and a file of SPyNet alone; both by what is in them."""
    found: dict[Path, Match] = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix in _SUFFIXES):
        if match := identify(dict(normalise(read_inventory(path))), kinds()):
            found[path] = match
    wanted = (*_network_kinds(preset), _flowless_kind(preset))
    network = _only(found, wanted, folder, f"a basicvsr:{preset} network")
    if network is None:
        seen = [
            f"{path.name} ({m.kind if m.exact else f'nearest to {m.kind}, but {m.describe()}'})"
            for path, m in found.items()
        ]
        held = ", ".join(seen) or "no file of this family"
        raise WeightsError(f"{folder}: no basicvsr:{preset} network there; it holds {held}")
    if found[network].kind != _flowless_kind(preset):
        return network, None
    return network, _only(found, _FLOW_KINDS, folder, "SPyNet")


def _only(
    found: Mapping[Path, Match], wanted: Sequence[str], folder: Path, what: str
) -> Path | None:
    """The one file of these kinds; several are refused rather than guessed between."""
    paths = [path for path, match in found.items() if match.exact and match.kind in wanted]
    if len(paths) > 1:
        names = " and ".join(path.name for path in paths)
        raise WeightsError(f"{folder}: {names} are each {what}; keep one, or name the file")
    return paths[0] if paths else None


def _network_kinds(preset: str) -> tuple[str, str]:
    return f"basicvsr:{preset} network", f"basicvsr:{preset} network with routers"


def _flowless_kind(preset: str) -> str:
    return f"basicvsr:{preset} network without SPyNet"


def _is_routing(name: str) -> bool:
    return name.startswith(_ROUTER) or name == _CALIBRATION
