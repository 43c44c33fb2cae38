"""The family as the package knows it."""

import logging
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from skipsr.backbones.basicvsr.beyond import surroundings_of, trace
from skipsr.backbones.basicvsr.block_skipping import BlockSkippingUpscaler
from skipsr.backbones.basicvsr.calibrate import calibrate_file
from skipsr.backbones.basicvsr.config import JUDGED_AS, PRESETS, SIBLINGS
from skipsr.backbones.basicvsr.limits import limits_of
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.backbones.basicvsr.options import DEFAULT_DETAIL, BasicVSROptions
from skipsr.backbones.basicvsr.upscaler import BasicVSRUpscaler
from skipsr.backbones.basicvsr.weights import kinds, networks, normalise
from skipsr.backbones.contract import Backbone, Upscaler
from skipsr.backbones.trainable import Traced
from skipsr.errors import SettingsError
from skipsr.settings import SkipSettings
from skipsr.strength import MODELS as DOUBTED
from skipsr.strength import Strength
from skipsr.weights.load import ASSETS

log = logging.getLogger(__name__)


def _as_they_are(frames: Tensor, _size: tuple[int, int]) -> Tensor:
    """The network enlarges by itself."""
    return frames


def _upscaler_for(
    name: str, skip: SkipSettings, options: BasicVSROptions
) -> Callable[[BasicVSR], BasicVSRUpscaler]:
    """See `UpscalerFactory`."""

    def finish(model: BasicVSR) -> BasicVSRUpscaler:
        detail = DEFAULT_DETAIL if options.detail is None else options.detail
        surroundings = None if skip.dense else surroundings_of(name, model)
        if model.crisp:
            model.blend(detail)
        elif detail > DEFAULT_DETAIL:
            raise SettingsError(
                f"{name} was trained in one way only: `detail` ends at {DEFAULT_DETAIL:g} here"
            )
        judged_as = JUDGED_AS.get(name, name)
        drawn = detail > 0 and (bool(model.crisp) or judged_as in DOUBTED)
        strength = Strength(judged_as, detail) if drawn else None
        if options.skip == "blocks" and not skip.dense:
            if model.router_forward is None:
                log.warning("%s has no routers here: every block will be run", name)
            return BlockSkippingUpscaler(name, model, skip, strength, patches=options.patches)
        # on a GPU so small a network is faster whole; DESIGN.md
        whole = not skip.asked and not model.fusion.weight.is_cpu
        if skip.speed is not None and not model.fusion.weight.is_cpu:
            log.warning("%s is fastest on a GPU with everything computed: leave out `speed`", name)
        settings = replace(skip, dense=True) if whole else skip
        return BasicVSRUpscaler(name, model, settings, strength, surroundings)

    return finish


def _trace(upscaler: Upscaler, frames: Tensor) -> Traced:
    """See `beyond.trace`."""
    assert isinstance(upscaler, BasicVSRUpscaler)
    model = upscaler.model
    layers = trace(model, frames[None].to(model.fusion.weight.device))[0]
    assert model.fusion.bias is not None
    return Traced(layers, model.fusion.bias)


BACKBONE = Backbone(
    presets=PRESETS,
    siblings=SIBLINGS,
    bundled={
        "nano": ASSETS / "skipvsr-nano.safetensors",
        "nano-x2": ASSETS / "skipvsr-nano-x2.safetensors",
    },
    limits=limits_of,
    build=BasicVSR,
    training_input=_as_they_are,
    kinds=kinds,
    normalise=normalise,
    networks=networks,
    optional=("router_backward", "router_forward"),
    exact=("router_",),  # confidences of bfloat16 are too coarse for a threshold to meet a budget
    options=BasicVSROptions,
    upscaler=_upscaler_for,
    calibrate=calibrate_file,
    trace=_trace,
    mmap_threshold=32 * 2**20,  # the most that glibc takes: few sizes, so the heap stays whole
)
