"""Networks to measure: of a model's files, or random where there are none."""

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from skipsr import backbones
from skipsr.backbones.contract import Backbone
from skipsr.backbones.options import Options, make_options
from skipsr.catalog import model_info
from skipsr.devices import resolve
from skipsr.loading import BUNDLED, Model, find_model
from skipsr.memory import set_mmap_threshold
from skipsr.settings import AUTO, RuntimeSettings
from skipsr.weights.place import Placement

N = TypeVar("N", bound=nn.Module)
_SPREAD = 0.02  # of random weights in place of zeros


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model to be measured: its family, and where networks come from and go to."""

    name: str
    backbone: Backbone
    preset: str
    options: Options
    device: torch.device
    dtype: torch.dtype
    files: Model | None  # None: there are none

    @property
    def config(self) -> Any:
        return self.backbone.presets[self.preset]

    @property
    def weights(self) -> str:
        """What they are, for a report."""
        return "random" if self.files is None else "loaded"

    def networks(self) -> nn.Module:
        """In place, ready to run."""
        set_mmap_threshold(self.backbone.mmap_threshold)
        if self.files is not None:
            return place(self.backbone.networks(self.preset, self.files.files), self)
        with self.device:
            networks = self.backbone.build(self.config)
        fill_zeros(networks)
        return place(networks, self)


def find_networks(
    name: str, runtime: RuntimeSettings, options: dict[str, object], scale: int | None = None
) -> Loaded:
    """The model of that name; random where it has no files and none were given.

    Args:
        scale: by how much it is to enlarge, of models with a network for each of several.

    Raises:
        SettingsError: for an unknown model, options that its family lacks, or a device that is not
            there.
        WeightsError: for files that do not fit.
    """
    if name == AUTO and runtime.weights is None:
        name = BUNDLED
    device, dtype = resolve(runtime)
    if runtime.weights is None:
        backbone, preset = backbones.family(name)
        info = model_info(backbone, preset, backbones.full_name(name))
        if not (info.bundled or info.fetched):
            own = make_options(backbone.options, options, name)
            return Loaded(
                name=info.name, backbone=backbone, preset=preset, options=own,
                device=device, dtype=dtype, files=None,
            )  # fmt: skip
    model = find_model(name, runtime, options)
    presets = {model.backbone.limits(model.backbone.presets[p]).scale: p for p in model.presets}
    preset = presets.get(scale, next(iter(presets.values())))
    return Loaded(
        name=model.presets[preset], backbone=model.backbone, preset=preset, options=model.options,
        device=device, dtype=dtype, files=model,
    )  # fmt: skip


def place(networks: N, loaded: Loaded) -> N:
    """Put networks where they run, as numbers of that kind."""
    Placement(device=loaded.device, dtype=loaded.dtype, exact=loaded.backbone.exact).put(networks)
    return networks.eval().requires_grad_(False)


@torch.no_grad()
def fill_zeros(networks: nn.Module) -> None:
    """Random numbers in place of weights that begin as zeros: products with zeros draw less power,
    so that a card would run them faster."""
    for parameter in networks.parameters():
        if parameter.ndim > 1 and not parameter.any():
            parameter.normal_(std=_SPREAD)
