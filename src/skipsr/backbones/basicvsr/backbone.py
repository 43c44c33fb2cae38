"""The family as the package knows it."""

from torch import Tensor

from skipsr.backbones.basicvsr.beyond import trace
from skipsr.backbones.basicvsr.calibrate import calibrate_file
from skipsr.backbones.basicvsr.config import PRESETS, SIBLINGS
from skipsr.backbones.basicvsr.limits import limits_of
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.backbones.basicvsr.options import BasicVSROptions
from skipsr.backbones.basicvsr.upscaler import BasicVSRUpscaler, upscaler_for
from skipsr.backbones.basicvsr.weights import kinds, networks, normalise
from skipsr.backbones.contract import Backbone, Upscaler
from skipsr.backbones.trainable import Traced
from skipsr.weights.load import ASSETS


def _as_they_are(frames: Tensor, _size: tuple[int, int]) -> Tensor:
    """The network enlarges by itself."""
    return frames


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
    upscaler=upscaler_for,
    calibrate=calibrate_file,
    trace=_trace,
    mmap_threshold=32 * 2**20,  # the most that glibc takes: few sizes, so the heap stays whole
)
