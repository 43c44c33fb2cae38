"""Progressive distillation: a student learns to go in one step where its teacher goes in two."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.backbones.trainable import Denoiser
from skipsr.nn.diffusion import T, step, timesteps, velocity_between
from skipsr.train.masks import MaskShares
from skipsr.train.objective import Batch, Losses, Phase, Reads
from skipsr.train.objectives.samples import LatentSample, draw_samples
from skipsr.train.transformers import copy_transformer


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillObjective:
    """One halving: MSE of velocities on the kept tokens between a teacher and a student.

    The teacher, which is the model as the stage begins, takes `steps` steps from noise to latent,
    the student half as many. `guidance` is the teacher's classifier-free guidance; the student
    learns its result, so it is given in the first halving only.
    """

    reads: ClassVar[Reads] = "latents"
    steps: int
    guidance: float = 1.0
    masks: MaskShares = MaskShares()
    condition_noise: float = 0.0  # see `draw_samples`

    def __post_init__(self) -> None:
        if self.steps < 2 or self.steps % 2:
            raise ValueError(f"a teacher takes an even number of steps, not {self.steps}")

    def phases(self, model: Denoiser) -> Sequence[Phase]:
        self.masks.announce(model.predicts)
        teacher = copy_transformer(model)
        master = teacher.part("transformer").requires_grad_(False)

        def losses(batch: Batch) -> Losses:
            samples = draw_samples(model, batch, self.masks, condition_noise=self.condition_noise)
            errors = torch.stack([self._error(model, teacher, sample) for sample in samples])
            return Losses(errors.mean(), {"mse": errors.mean().item()})

        return [Phase("transformer", model.part("transformer"), losses, auxiliary=[master])]

    def _error(self, model: Denoiser, teacher: Denoiser, sample: LatentSample) -> Tensor:
        place = torch.randint(1, self.steps // 2 + 1, (), generator=sample.generator)
        now = timesteps(self.steps // 2)[-place].to(sample.time)
        between, then = now - T / self.steps, now - 2 * T / self.steps
        start = sample.at(now)
        with torch.no_grad():
            middle = self._step(teacher, sample, start, now, between)
            end = self._step(teacher, sample, middle, between, then)
            target = sample.kept(velocity_between(start, end, now, then))
        velocity = model.velocity(start, sample.condition, now, sample.route)
        return F.mse_loss(velocity.float(), target)

    def _step(
        self, teacher: Denoiser, sample: LatentSample, x: Tensor, now: Tensor, then: Tensor
    ) -> Tensor:
        """The teacher's Euler step on the kept cells of `t h w c`."""
        velocity = teacher.velocity(x, sample.condition, now, sample.route, guidance=self.guidance)
        return sample.route.compose(step(sample.kept(x), velocity.float(), now, then), x)
