"""How strongly additions are drawn: by what a clip's spectrum tells of its damage."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from skipsr.data.degrade import downscale
from skipsr.errors import WeightsError
from skipsr.strength import (
    MODELS,
    PRICE,
    DoubtPredictor,
    Strength,
    load_doubt,
    spectrum_of,
)
from skipsr.video import open_source

CPU = torch.device("cpu")
SAMPLE = Path(__file__).parents[2] / "src" / "skipsr" / "assets" / "sample.mp4"


def constant(doubt: float) -> DoubtPredictor:
    predictor = DoubtPredictor()
    last = predictor.layers[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, math.log(doubt))
    return predictor.requires_grad_(False)


def test_a_flat_frame_has_no_spectrum_and_waves_have_theirs():
    flat = spectrum_of(torch.full((2, 3, 20, 24), 0.3))
    assert flat.shape == (106,)
    torch.testing.assert_close(flat, torch.full((106,), math.log(0.1)), atol=1e-3, rtol=0)
    wave = torch.cos(torch.pi * torch.arange(24.0))[None].expand(1, 3, 24, 24)
    fine = spectrum_of(0.5 + 0.2 * wave)
    # of the pairs of frequencies (0, 1) ... (0, 7), the last but none is the finest across
    assert fine[:7].argmax() == 6


def test_rows_and_columns_count_alike_and_flips_do_nothing():
    frames = torch.rand(2, 3, 32, 32)
    expected = spectrum_of(frames)
    for turned in (frames.transpose(2, 3), frames.flip(3), frames.flip(2)):
        torch.testing.assert_close(spectrum_of(turned), expected, atol=1e-4, rtol=1e-4)


def test_small_frames_are_taken():
    assert spectrum_of(torch.rand(1, 3, 3, 5)).isfinite().all()


@pytest.mark.parametrize("detail", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("doubt", [0.5, 4.0])
def test_the_error_grows_by_the_price_at_most(detail: float, doubt: float):
    """Of what is left, orthogonal to what was added, as the predicted doubt says."""
    strength = Strength("skipvsr:nano", detail, constant(doubt))(torch.rand(1, 3, 16, 16), CPU)
    added, left = torch.tensor([1.0, 0.0]), torch.tensor([0.0, math.sqrt(doubt)])
    truth = added + left
    before, after = ((truth - c * added).square().sum() for c in (1.0, strength))
    paid = min(1.0, 2 * detail) ** 2 * PRICE
    assert after / before - 1 == pytest.approx(paid, rel=1e-3)


def test_strength_is_bounded():
    assert Strength("skipvsr:nano", 0.5, constant(1e6))(torch.rand(1, 3, 16, 16), CPU) == 1.6


def test_a_model_of_which_nothing_is_known_is_drawn_as_usual():
    frames = [torch.rand(2, 3, 16, 16), torch.full((1, 3, 40, 40), 0.5)]
    found = {Strength("skipvsr:small", 0.5)(each, CPU).item() for each in frames}
    assert len(found) == 1
    assert 1.2 < found.pop() < 1.5


@pytest.mark.parametrize("model", MODELS)
def test_what_is_damaged_is_drawn_more_strongly(model: str):
    with open_source(SAMPLE) as source:
        frames = next(iter(source.clips(5, 0))).frames
    clean = downscale(frames.transpose(0, 1)[None], 2)[0].transpose(0, 1)
    small = F.interpolate(clean, scale_factor=0.5, mode="bilinear", antialias=True)
    soft = F.interpolate(small, clean.shape[2:], mode="bilinear")
    strength = Strength(model, 0.5)
    assert strength(soft, CPU) > strength(clean, CPU) + 0.03


def test_a_damaged_file_is_refused(tmp_path: Path):
    (tmp_path / "doubt.safetensors").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match=r"doubt\.safetensors"):
        load_doubt(tmp_path / "doubt.safetensors")
