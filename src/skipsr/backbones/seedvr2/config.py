"""Configurations of the SeedVR2 family (arXiv 2506.05301), and its named presets."""

from dataclasses import dataclass, replace
from typing import Literal

Triple = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiTConfig:
    """The diffusion transformer. The two published families differ in these fields only."""

    width: int
    heads: int
    head_dim: int = 128
    layers: int
    separate_layers: (
        int  # leading layers in which text has weights of its own; the others share the video's
    )
    mlp: Literal["swiglu", "gelu"]
    mlp_ratio: int = 4
    rotary: Literal["language", "pixel"]
    output_norm: bool  # norm and modulation before the output projection
    text_in_last_layer: bool  # whether the last layer still modulates text and runs its MLP
    qk_bias: bool = False
    text_width: int = 5120
    in_channels: int = 33  # noisy latent, condition latent, mask
    out_channels: int = 16
    windows: Triple = (4, 3, 3)  # windows along t, h, w at 720p
    eps: float = 1e-5

    @property
    def rotary_dim(self) -> int:
        """Rotated features along one axis: a third of those that rotate."""
        return (self.head_dim if self.rotary == "language" else self.head_dim // 2) // 3


@dataclass(frozen=True, slots=True, kw_only=True)
class VAEConfig:
    """The causal video autoencoder."""

    channels: tuple[int, ...] = (128, 256, 512, 512)  # per level, finest first
    encoder_blocks: int = 2  # residual blocks per level, of a deep encoder
    decoder_blocks: int = 3
    groups: int = 32  # of the frame norms; 0: none, so that contrast passes and nothing looks far
    latent_channels: int = 16
    temporal_levels: int = 2  # coarsest downsamplers that also halve time
    # decoder output = upsampled LR frames + residual; and the encoder is linear (`patches`)
    base_conditioned: bool = False

    @property
    def space(self) -> int:
        """Pixels per latent cell along a side."""
        return 2 ** (len(self.channels) - 1)

    @property
    def time(self) -> int:
        """Frames per latent frame, after the first."""
        return 2**self.temporal_levels


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorConfig:
    """The mask predictor of SkipSR, section 3.2; 648 wide it has the paper's 23 M parameters."""

    width: int = 648
    layers: int = 4
    latent_channels: int = 16
    any_tau: bool = False  # regresses the log error, so that tau can be chosen at run time


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the model is sampled."""

    steps: int = 1
    guidance: float = 1.0
    rescale: float = 0.0
    condition_noise: float = 0.0  # noise level added to the LR condition, 0 to 1

    @property
    def passes(self) -> int:
        """How often the transformer is run: in each step with the texts that guidance needs."""
        return self.steps * (bool(self.guidance or self.rescale) + (self.guidance != 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedVR2Config:
    """A whole model: networks, conditioning tokens, sampling."""

    dit: DiTConfig
    vae: VAEConfig = VAEConfig()
    predictor: PredictorConfig = PredictorConfig()
    sampling: Sampling = Sampling()
    text_tokens: int = 58
    negative_tokens: int = 64  # 0: the model knows no negative conditioning
    latent_scale: float = 0.9152

    def __post_init__(self) -> None:
        if self.dit.in_channels != 2 * self.vae.latent_channels + 1:
            raise ValueError(
                "the transformer reads noisy latent, condition latent and a mask channel"
            )
        if self.dit.out_channels != self.vae.latent_channels:
            raise ValueError("the transformer writes as many channels as the latent has")
        if self.sampling.guidance != 1 and not self.negative_tokens:
            raise ValueError("guidance needs negative conditioning tokens")


DIT_3B = DiTConfig(
    width=2560,
    heads=20,
    layers=32,
    separate_layers=10,
    mlp="swiglu",
    rotary="language",
    output_norm=True,
    text_in_last_layer=False,
)
DIT_7B = DiTConfig(
    width=3072,
    heads=24,
    layers=36,
    separate_layers=36,
    mlp="gelu",
    rotary="pixel",
    output_norm=False,
    text_in_last_layer=True,
)

_MANY_STEPS = Sampling(steps=50, guidance=6.5, condition_noise=0.1)  # of SeedVR's own scripts

SAME_FILES = {"3b-50": "3b", "7b-50": "7b"}
"""Presets whose files hold the same tensors as another's: SeedVR differs from SeedVR2 in what was
learned, and so in how it is sampled."""

PRESETS: dict[str, SeedVR2Config] = {
    "3b": SeedVR2Config(dit=DIT_3B),
    "7b": SeedVR2Config(dit=DIT_7B),
    "3b-50": SeedVR2Config(dit=DIT_3B, sampling=_MANY_STEPS),
    "7b-50": SeedVR2Config(dit=DIT_7B, sampling=_MANY_STEPS),
    "nano": SeedVR2Config(
        dit=replace(
            DIT_3B, width=256, heads=4, head_dim=64, layers=4, separate_layers=1, text_width=256
        ),
        vae=VAEConfig(channels=(16, 32, 64, 64), decoder_blocks=2, groups=0, base_conditioned=True),
        predictor=PredictorConfig(width=48, any_tau=True),
        text_tokens=8,
        negative_tokens=0,
    ),
    "tiny": SeedVR2Config(
        dit=replace(
            DIT_3B,
            width=48,
            heads=2,
            head_dim=24,
            layers=3,
            separate_layers=1,
            text_width=32,
            in_channels=9,
            out_channels=4,
        ),
        vae=VAEConfig(
            channels=(8, 8, 16, 16),
            decoder_blocks=1,
            groups=0,
            latent_channels=4,
            base_conditioned=True,
        ),
        predictor=PredictorConfig(width=8, latent_channels=4, any_tau=True),
        text_tokens=4,
        negative_tokens=3,
    ),
}
