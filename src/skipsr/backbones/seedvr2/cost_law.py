"""Multiplications that the stages take, by shapes: how much of a window each is.

Counted are convolutions over space and the matrices of the transformer's blocks, as they count
themselves when they have run (`skipsr.tracing.worked`); all else is a few percent, an encoder of
patches as well.
"""

from skipsr.backbones.seedvr2.config import DiTConfig, Sampling, SeedVR2Config, VAEConfig
from skipsr.nn.mlp import swiglu_width
from skipsr.skipping.dial import CostModel

_TAPS = 27
_CELLS = 4  # latent cells in a token
_FIXED, _SLOPE = 0.1, 1.0  # of time beside encode's: results/regions_seedvr2_nano.md, gpu/job.json


def stage_work(config: SeedVR2Config, sampling: Sampling, pixels: int) -> dict[str, float]:
    """Of each stage of a clip, for the pixels of all its frames, if nothing is skipped."""
    tokens = pixels / (config.vae.space**2 * config.vae.time * _CELLS)
    layers = config.dit.layers * sampling.passes
    return {
        "encode": pixels * encode_work(config.vae),
        "denoise": tokens * layers * block_work(config.dit),
        "decode": pixels * decode_work(config.vae),
    }


def skipping_cost(config: SeedVR2Config, sampling: Sampling) -> CostModel:
    """What computing a part costs: encode sees everything, the other stages that part."""
    work = stage_work(config, sampling, pixels=1)
    always = work["encode"] / sum(work.values())
    rest = 1 - always
    return CostModel(always=always, fixed=always + _FIXED * rest, slope=_SLOPE * rest)


def denoising(config: SeedVR2Config, sampling: Sampling) -> float:
    """The transformer's share of the work that can be skipped."""
    work = stage_work(config, sampling, pixels=1)
    return work["denoise"] / (work["denoise"] + work["decode"])


def encode_work(config: VAEConfig) -> float:
    """Of a pixel of a frame."""
    if config.base_conditioned:
        return 0.0  # a matrix of patches
    channels, blocks, last = config.channels, config.encoder_blocks, len(config.channels) - 1
    work = float(_TAPS * 3 * channels[0])
    for level, width in enumerate(channels):
        before = channels[max(level - 1, 0)]
        work += _places(config, level) * _TAPS * width * (before + (2 * blocks - 1) * width)
        if level < last:
            taps = _TAPS if level >= last - config.temporal_levels else _TAPS // 3
            work += _places(config, level + 1) * taps * width**2
    coarse = channels[-1]
    return work + _places(config, last) * _TAPS * coarse * (4 * coarse + 2 * config.latent_channels)


def decode_work(config: VAEConfig) -> float:
    """Of a pixel of a frame."""
    channels, blocks, last = config.channels, config.decoder_blocks, len(config.channels) - 1
    coarse = channels[-1]
    work = _places(config, last) * _TAPS * coarse * (4 * coarse + config.latent_channels)
    for level, width in enumerate(channels):
        before = channels[min(level + 1, last)]
        work += _places(config, level) * _TAPS * width * (before + (2 * blocks - 1) * width)
        if level:
            work += _places(config, level - 1) * _TAPS * width**2
    if config.base_conditioned:
        work += _TAPS * 3 * (channels[1] + channels[2])
    return work + _TAPS * 3 * channels[0]


def block_work(config: DiTConfig) -> int:
    """Of a token in a block of the transformer."""
    return config.width * (4 * config.heads * config.head_dim + mlp_width(config))


def mlp_width(config: DiTConfig) -> int:
    """Of all matrices of an MLP together, beside the width of the transformer."""
    if config.mlp == "swiglu":
        return 3 * swiglu_width(config.width, config.mlp_ratio)
    return 2 * config.width * config.mlp_ratio


def _places(config: VAEConfig, level: int) -> float:
    """Of a level, for each pixel of a frame."""
    halved = max(0, level - len(config.channels) + 1 + config.temporal_levels)  # in time
    return 0.25**level * 0.5**halved
