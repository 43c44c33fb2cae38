"""How a training run is set up. A recipe holds one for each stage."""

from dataclasses import dataclass

import torch

from skipsr.data.degrade import Degradation, RandomDegradation


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """One training run."""

    model: str  # "family:preset"
    steps: int
    batch: int = 4  # over all devices
    crop: int = 128  # pixels of the HR crop's side, a multiple of 16
    frames: int = 5  # 4n+1 for diffusion families
    degradation: RandomDegradation = Degradation()
    learning_rate: float = 1e-3
    warmup: int = 50  # steps
    weight_decay: float = 0.01
    clip_norm: float = 1.0  # largest norm of the gradient
    ema: float = 0.999  # decay of the averaged weights, which are what is exported
    bfloat16: bool = False  # autocast
    seed: int = 0
    latents: int = 4096  # samples kept when a folder for latents is given
    samples: int = 0  # clips degraded once and cut anew for every step; 0: a new one every time
    sequence: int = 1  # devices that share one clip's tokens
    recompute: bool = False  # layers in the backward pass, instead of keeping what they computed
    checkpoint_every: int = 250  # steps; a crash loses at most this many
    log_every: int = 20

    def autocast(self, device: torch.device) -> torch.autocast:
        """A context in which losses are computed."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16)
