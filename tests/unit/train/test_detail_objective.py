"""What a discriminator asks is weighed by the other losses, and by whether it can tell at all."""

import pytest
import torch
from torch import Tensor, nn

from skipsr.train.objectives.detail import DetailObjective
from skipsr.train.patch_discriminator import PatchDiscriminator
from skipsr.train.pixels import charbonnier

FAITHFUL = DetailObjective(share=0.5, structure=0.0)


class LikesBright(nn.Module):
    """Logits that grow with the brightness of the frames."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, frames: Tensor) -> Tensor:
        return self.gain * frames.mean((1, 2, 3, 4))


def clips(shift: float) -> tuple[Tensor, Tensor]:
    """Frames that were made, and a truth that is brighter by `shift`."""
    made = torch.rand(2, 3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) / 2
    return made.requires_grad_(True), made.detach() + shift


def gradients(shift: float, gain: float) -> tuple[Tensor, Tensor]:
    """Of the whole loss, and of the faithful part alone."""
    made, truth = clips(shift)
    losses = FAITHFUL._refine(made, truth, LikesBright(gain))  # type: ignore[arg-type]
    (whole,) = torch.autograd.grad(losses.total, made)
    assert losses.total.item() == pytest.approx(charbonnier(made, truth).item(), rel=1e-6)
    (alone,) = torch.autograd.grad(charbonnier(made, truth), made)
    return whole, alone


def test_one_that_is_sure_asks_for_its_share():
    for gain in (3.0, 300.0):  # however loud it is
        whole, alone = gradients(0.2, gain)
        added = whole - alone
        assert (added.norm() / alone.norm()).item() == pytest.approx(0.5, rel=1e-4)
        assert (added < 0).all()  # brighter is what it likes


def test_one_that_cannot_tell_is_not_heeded():
    whole, alone = gradients(0.0001, 1.0)
    assert ((whole - alone).norm() / alone.norm()).item() < 0.001
    whole, alone = gradients(-0.2, 3.0)  # or takes the made ones for real
    assert torch.equal(whole, alone)


def test_patches_of_three_frames_each_have_a_logit():
    torch.manual_seed(0)
    judge = PatchDiscriminator(8)
    frames = torch.rand(2, 3, 5, 32, 48)
    assert judge(frames).shape == (4, 1, 4, 6)
    still = frames[:, :, :1].expand(-1, -1, 3, -1, -1)
    swapped = frames[:, :, :3].flip(2)
    assert not torch.allclose(judge(frames[:, :, :3]), judge(swapped), atol=1e-4)  # order counts
    assert judge(still).isfinite().all()


def test_norms_of_its_layers_are_one():
    torch.manual_seed(0)
    judge = PatchDiscriminator(8)
    with torch.no_grad():
        for _ in range(30):  # power iterations
            judge(torch.rand(1, 3, 3, 16, 16))
        for layer in judge.layers:
            weight = layer.weight
            assert isinstance(weight, Tensor)
            assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, 0.05)
