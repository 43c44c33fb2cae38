"""Colour match and oracle mask against slow definitions."""

import pytest
import torch
import torch.nn.functional as F
from made_models import make_clip, random
from torch import Tensor

from skipsr.nn.color_fix import keep_grey, low_frequencies, transfer_low_frequencies
from skipsr.skipping.oracle import TAU, oracle_keep, patch_errors


def slow_low(frames: Tensor) -> Tensor:
    """Five dilated 3x3 convolutions, borders replicated, as the original has it."""
    line = torch.tensor([0.25, 0.5, 0.25]).double()
    kernel = (line[:, None] * line[None]).expand(3, 1, 3, 3)
    x = frames.double()
    for level in range(5):
        radius = 2**level
        padded = F.pad(x, (radius,) * 4, mode="replicate")
        x = F.conv2d(padded, kernel, groups=3, dilation=radius)
    return x


@pytest.mark.parametrize("size", [(40, 52), (16, 16), (5, 70), (33, 8)])
def test_tone_is_high_of_one_plus_low_of_the_other(size):
    a, b = (torch.rand((2, 3, *size), generator=torch.Generator().manual_seed(i)) for i in range(2))
    expected = a - slow_low(a) + slow_low(b)
    torch.testing.assert_close(transfer_low_frequencies(a, b).double(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(low_frequencies(a).double(), slow_low(a), atol=1e-6, rtol=0)


def test_only_frames_of_grey_ones_become_their_luma():
    grey = random(1, 1, 4, 6).expand(1, 3, 4, 6)
    source = torch.cat((grey, random(1, 3, 4, 6, seed=1), grey, grey))
    made = random(4, 3, 8, 12, seed=2)
    made[3] = made[3, :1]
    expected = made.clone()
    weights = torch.tensor([0.299, 0.587, 0.114])
    for i in (0, 2):
        expected[i] = torch.einsum("c,chw->hw", weights, made[i])
    found = keep_grey(made.clone(), source)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert torch.equal(found[[1, 3]], made[[1, 3]])
    assert torch.equal(found[0, 0], found[0, 2])
    for other in range(3):  # a single colour differs
        tinted = grey.clone()
        tinted[:, other] += 0.1
        assert torch.equal(keep_grey(made[:1].clone(), tinted), made[:1])


def test_a_constant_offset_is_removed():
    clip = make_clip(2, 24, 40).frames
    offset = torch.tensor([0.2, -0.1, 0.05]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(
        transfer_low_frequencies(clip + offset, clip), clip, atol=1e-6, rtol=0
    )


def test_tone_does_not_change_its_input():
    a, b = random(1, 3, 20, 20), random(1, 3, 20, 20, seed=1)
    copies = a.clone(), b.clone()
    transfer_low_frequencies(a, b)
    assert torch.equal(a, copies[0])
    assert torch.equal(b, copies[1])


def slow_errors(frames: Tensor) -> Tensor:
    """Patch by patch and formula by formula: `3 t h w` -> `n+1 h/16 w/16`, float64."""
    frames = frames.double()
    _, t, h, w = frames.shape
    plain = torch.empty_like(frames)
    for time in range(t):
        small = frames[:, time].reshape(3, h // 4, 4, w // 4, 4).mean((2, 4))
        for y in range(h):
            for x in range(w):
                # half-pixel convention: the middle of pixel x lies at (x + 0.5) / 4 - 0.5 below
                sy, sx = max((y + 0.5) / 4 - 0.5, 0.0), max((x + 0.5) / 4 - 0.5, 0.0)
                y0, x0 = int(sy), int(sx)
                y1, x1 = min(y0 + 1, h // 4 - 1), min(x0 + 1, w // 4 - 1)
                fy, fx = sy - y0, sx - x0
                top = small[:, y0, x0] * (1 - fx) + small[:, y0, x1] * fx
                low = small[:, y1, x0] * (1 - fx) + small[:, y1, x1] * fx
                plain[:, time, y, x] = top * (1 - fy) + low * fy
    layers = [range(1)] + [range(4 * i - 3, 4 * i + 1) for i in range(1, (t - 1) // 4 + 1)]
    out = torch.empty(len(layers), h // 16, w // 16).double()
    for i, layer in enumerate(layers):
        for row in range(h // 16):
            for column in range(w // 16):
                y, x = slice(16 * row, 16 * row + 16), slice(16 * column, 16 * column + 16)
                times = list(layer)
                out[i, row, column] = (
                    (frames[:, times, y, x] - plain[:, times, y, x]).square().mean()
                )
    return out


def test_oracle_equals_the_slow_reference():
    frames = torch.rand((3, 5, 32, 48), generator=torch.Generator().manual_seed(0))
    frames[:, 1:3] *= 0.2  # so that frames count differently
    frames[..., :20] = frames[..., :20] * 0.05 + 0.5  # and patches lie on both sides of tau
    errors = slow_errors(frames)
    ours = patch_errors(torch.stack((frames, frames.flip(1))))
    torch.testing.assert_close(ours[0].double(), errors, atol=1e-7, rtol=1e-5)
    assert torch.equal(oracle_keep(frames[None])[0], errors > TAU)
    assert 0 < (errors > TAU).float().mean() < 1


def test_flat_is_skipped_and_noise_is_kept():
    colours = torch.rand((1, 3, 9, 1, 1), generator=torch.Generator().manual_seed(1))
    assert not oracle_keep(colours.expand(1, 3, 9, 32, 48)).any()
    noise = torch.rand((1, 3, 9, 32, 48), generator=torch.Generator().manual_seed(2))
    assert oracle_keep(noise).all()


def test_the_first_layer_is_frame_0_alone():
    frames = torch.full((1, 3, 9, 32, 32), 0.5)
    frames[:, :, 0] = torch.rand((3, 32, 32), generator=torch.Generator().manual_seed(3))
    assert oracle_keep(frames)[0].flatten(1).all(1).tolist() == [True, False, False]
    frames = frames.roll(4, 2)  # now frame 4 alone, the last one of the second layer
    assert oracle_keep(frames)[0].flatten(1).all(1).tolist() == [False, True, False]
    frames = frames.roll(1, 2)
    assert oracle_keep(frames)[0].flatten(1).all(1).tolist() == [False, False, True]


@pytest.mark.parametrize("shape", [(4, 32, 32), (5, 24, 32), (5, 32, 40)])
def test_other_sizes_are_refused(shape):
    with pytest.raises(ValueError, match=r"are not 4n\+1 frames"):
        patch_errors(torch.zeros(1, 3, *shape))
