"""The family as the package knows it."""

from skipsr.backbones.contract import Backbone
from skipsr.backbones.seedvr2.assemble import place_networks, upscaler_for
from skipsr.backbones.seedvr2.config import PRESETS, SAME_FILES
from skipsr.backbones.seedvr2.limits import limits_of
from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.backbones.seedvr2.options import SeedVR2Options
from skipsr.backbones.seedvr2.published import PUBLISHED
from skipsr.backbones.seedvr2.weights import kinds, networks, normalise
from skipsr.nn.resize import resize_bicubic
from skipsr.weights.load import ASSETS

BACKBONE = Backbone(
    presets=PRESETS,
    same_files=SAME_FILES,
    bundled={"nano": ASSETS / "seedvr2-nano.safetensors"},
    published=PUBLISHED,
    limits=limits_of,
    build=SeedVR2,
    training_input=resize_bicubic,
    kinds=kinds,
    normalise=normalise,
    networks=networks,
    optional=("predictor",),
    options=SeedVR2Options,
    upscaler=upscaler_for,
    place=place_networks,
)
