"""The whole model as one module: transformer, autoencoder, mask predictor, conditioning tokens."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from einops import rearrange
from torch import Tensor, nn

from skipsr.backbones.seedvr2.config import PredictorConfig, SeedVR2Config
from skipsr.backbones.seedvr2.dit import DiT
from skipsr.backbones.seedvr2.sampler import Conditioning, Velocity
from skipsr.backbones.seedvr2.vae import VideoAutoencoder
from skipsr.backbones.trainable import PartName
from skipsr.nn.causal import Bounds
from skipsr.nn.residence import Residence
from skipsr.skipping.oracle import TAU
from skipsr.skipping.predictor import MaskPredictor
from skipsr.skipping.route import Route, to_cells


def build_predictor(config: PredictorConfig) -> MaskPredictor:
    return MaskPredictor(
        config.latent_channels, config.width, config.layers, any_tau=config.any_tau
    )


class ConditioningTokens(nn.Module):
    """The fixed text embeddings, stored where no text encoder is shipped."""

    def __init__(self, positive: int, negative: int, width: int) -> None:
        super().__init__()
        self.positive = nn.Parameter(torch.randn(positive, width))
        self.negative = nn.Parameter(torch.randn(negative, width)) if negative else None


class SeedVR2(nn.Module):
    """Everything a run needs; a `Denoiser` for training.

    State-dict prefixes: `dit`, `vae`, `predictor`, `text`.
    """

    def __init__(self, config: SeedVR2Config) -> None:
        super().__init__()
        self.config = config
        self.dit = DiT(config.dit)
        self.vae = VideoAutoencoder(config.vae)
        # entered around each use; offloaded weights are brought to the device meanwhile
        self.residence: Residence = "device"
        self.autoencoder_at_work: AbstractContextManager[None] = nullcontext()
        self.transformer_at_work: AbstractContextManager[None] = nullcontext()
        self.predictor: MaskPredictor | None = build_predictor(config.predictor)
        self.text = ConditioningTokens(
            config.text_tokens, config.negative_tokens, config.dit.text_width
        )

    def part(self, name: PartName) -> nn.Module:
        if name == "transformer":
            return nn.ModuleList([self.dit, self.text])
        if name == "predictor":
            if self.predictor is None:
                self.predictor = build_predictor(self.config.predictor).to(self.text.positive)
            return self.predictor
        return self.vae.decoder if name == "decoder" else self.vae

    @property
    def predicts(self) -> bool:
        """Whether there is a mask predictor; published models have none until one is trained."""
        return self.predictor is not None

    @property
    def conditioning(self) -> Conditioning:
        return Conditioning(self.text.positive, self.text.negative)

    def encode(self, frames: Tensor, bounds: Bounds | None = None) -> Tensor:
        """Scaled latents `b t' h/8 w/8 c` of frames `b 3 t h w` in [0, 1]: the posterior's mean.

        The published scripts draw a sample instead; the mean is deterministic and a little cleaner.

        Args:
            bounds: of memory, without gradients; frames may then be on another device.
        """
        mean = self.vae.encode(frames * 2 - 1, bounds=bounds).mean
        return rearrange(mean, "b c t h w -> b t h w c") * self.config.latent_scale

    def encode_sample(
        self, frames: Tensor, generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        """A sample of the posterior, as from `encode`, and its mean KL divergence to N(0, 1)."""
        posterior = self.vae.encode(frames * 2 - 1)
        mean, spread = posterior.mean.float(), posterior.log_variance.float()
        noise = torch.stack(
            [torch.randn(mean.shape[1:], generator=generator) for generator in generators]
        )
        noise = noise.to(mean.device)
        latent = rearrange(mean + noise * (spread / 2).exp(), "b c t h w -> b t h w c")
        divergence = (mean.square() + spread.exp() - 1 - spread).mean() / 2
        return latent * self.config.latent_scale, divergence

    def scores(self, latent: Tensor, tau: float = TAU) -> Tensor:
        """Logits `b t h/2 w/2` that a token's error exceeds `tau`, from LR latents `b t h w c`."""
        assert self.predictor is not None
        return self.predictor(latent, tau)

    def decode(self, latent: Tensor, base: Tensor) -> Tensor:
        """Frames `b 3 t h w`, about [0, 1], float32, of scaled latents `b t' h w c`.

        Args:
            latent: as `encode` gives it.
            base: upsampled LR frames `b 3 t h w` in [0, 1]; read only if the autoencoder sees them.
        """
        return torch.cat(list(self.decode_slices(latent, base)), 2)

    def decode_slices(
        self, latent: Tensor, base: Tensor, bounds: Bounds | None = None
    ) -> Iterator[Tensor]:
        """What `decode` gives, a few frames at a time."""
        latent = rearrange(latent, "b t h w c -> b c t h w") / self.config.latent_scale
        seen = base * 2 - 1 if self.config.vae.base_conditioned else None
        for part in self.vae.decode_slices(latent, seen, bounds=bounds):
            yield part.float() / 2 + 0.5

    def velocity(
        self,
        noisy: Tensor,
        base: Tensor,
        timestep: Tensor,
        route: Route,
        *,
        guidance: float | None = None,
    ) -> Tensor:
        """Velocity of the kept cells, `k 4 c`, of one sample.

        Args:
            noisy, base: latents `t h w c`.
            timestep: scalar in [0, 1000].
            route: over the token grid.
            guidance: instead of the configured one.
        """
        sampling = self.config.sampling
        if guidance is not None:
            sampling = dataclasses.replace(sampling, guidance=guidance)
        cells = route.pack(to_cells(base))
        predict = Velocity(self.dit, cells, self.conditioning, route, sampling)
        return predict(route.pack(to_cells(noisy)), timestep)
