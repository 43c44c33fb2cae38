"""Progressive distillation: a student learns to go in one step where its teacher goes in two
(spec/skipsr section 6)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.backbones.contract import Denoiser
from skipsr.skipping.route import from_cells, to_cells
from skipsr.train.masks import MaskShares
from skipsr.train.objective import Batch, Losses, Phase, Reads
from skipsr.train.objectives.samples import Sample, T, draw_samples
from skipsr.train.twin import twin


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillObjective:
    """One halving: the teacher, which is the model as the stage begins, takes `steps` steps from
    noise to latent, the student half as many. MSE of velocities on the kept tokens.

    `guidance` is the teacher's classifier-free guidance; the student learns its result, so it is
    given in the first halving only.
    """

    steps: int
    guidance: float = 1.0
    masks: MaskShares = MaskShares()

    def __post_init__(self) -> None:
        if self.steps < 2 or self.steps % 2:
            raise ValueError(f"a teacher takes an even number of steps, not {self.steps}")

    @property
    def reads(self) -> Reads:
        return "latents"

    def phases(self, model: Denoiser) -> Sequence[Phase]:
        teacher = twin(model)
        master = teacher.part("transformer").requires_grad_(False)

        def losses(batch: Batch) -> Losses:
            samples = draw_samples(model, batch, self.masks)
            errors = torch.stack([self._error(model, teacher, sample) for sample in samples])
            return Losses(errors.mean(), {"mse": errors.mean().item()})

        return [Phase("transformer", model.part("transformer"), losses, beside=[master])]

    def _error(self, model: Denoiser, teacher: Denoiser, sample: Sample) -> Tensor:
        stride = 2 * T / self.steps
        place = torch.randint(1, self.steps // 2 + 1, (), generator=sample.draw)
        now = (place * stride).to(sample.time)
        start = sample.at(now)
        with torch.no_grad():
            between = self._step(teacher, sample, start, now)
            end = self._step(teacher, sample, between, now - stride / 2)
            target = sample.kept(start - end) * (T / stride)
        velocity = model.velocity(start, sample.base, now, sample.route)
        return F.mse_loss(velocity.float(), target)

    def _step(self, teacher: Denoiser, sample: Sample, x: Tensor, now: Tensor) -> Tensor:
        """The teacher's Euler step from `now`, on the kept cells of `t h w c`."""
        velocity = teacher.velocity(x, sample.base, now, sample.route, guidance=self.guidance)
        cells = sample.kept(x) - velocity.float() / self.steps
        return from_cells(sample.route.scatter(cells, to_cells(x)))
