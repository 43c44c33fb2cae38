"""NIQE and BRISQUE: order, refusals, flat frames; the numbers are in tests/parity."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors import safe_open
from torch import Tensor

from skipsr.metrics import METRICS, MetricError
from skipsr.metrics.brisque import brisque
from skipsr.metrics.natural import parameters, shape_of
from skipsr.metrics.niqe import niqe

IMAGES = Path(__file__).parents[2] / "parity" / "metrics" / "images.safetensors"


@pytest.fixture(scope="module")
def picture() -> Tensor:
    """A photograph, `1 3 208 304`."""
    with safe_open(IMAGES, "pt") as file:
        return rearrange(file.get_tensor("img0.ref"), "h w c -> 1 c h w").float() / 255


@pytest.mark.parametrize("measure", [niqe, brisque])
def test_blur_is_worse_than_the_photograph(measure, picture: Tensor):
    soft = F.avg_pool2d(F.pad(picture, (2, 2, 2, 2), mode="replicate"), 5, 1)
    assert measure(soft) > measure(picture) + 1


@pytest.mark.parametrize("measure", [niqe, brisque])
def test_a_clip_is_the_mean_of_its_frames(measure, picture: Tensor):
    clip = torch.cat((picture, picture.flip(3) * 0.5, picture**2))
    apart = [measure(frame[None]) for frame in clip]
    assert len(set(apart)) == 3
    assert measure(clip) == pytest.approx(sum(apart) / 3)


@pytest.mark.parametrize("measure", [niqe, brisque])
def test_flat_frames_are_left_out(measure, picture: Tensor):
    flat = torch.full_like(picture, 0.5)
    assert measure(torch.cat((picture, flat))) == pytest.approx(measure(picture))
    with pytest.raises(MetricError, match="not defined for these frames: they are flat"):
        measure(flat)


def test_the_border_is_cut_first(picture: Tensor):
    assert niqe(picture, border=4) == pytest.approx(niqe(picture[..., 4:-4, 4:-4]))
    assert niqe(picture, border=4) != niqe(picture)


def test_only_whole_blocks_count(picture: Tensor):
    assert niqe(picture) == niqe(picture[..., :192, :288])


def test_too_small_pictures_are_refused():
    with pytest.raises(MetricError, match="NIQE needs two 96x96 blocks of pixels; 191x191 has"):
        niqe(torch.rand(1, 3, 191, 191))
    with pytest.raises(MetricError, match="180x190 has"):
        niqe(torch.rand(1, 3, 210, 200), border=10)
    with pytest.raises(MetricError, match="BRISQUE needs at least 16 pixels a side, not 40x15"):
        brisque(torch.rand(1, 3, 15, 40))


def test_the_table_needs_no_truth(picture: Tensor):
    for name, measure in (("niqe", niqe), ("brisque", brisque)):
        assert METRICS[name].measure(picture, None) == {name: measure(picture)}


def test_shape_of_known_distributions():
    found = shape_of(torch.tensor([1.0, 2.0]).double()).tolist()
    assert found == pytest.approx([0.5, 2 / torch.pi])  # Laplace and Gauss


def test_parameters():
    pristine, regressor = parameters("niqe"), parameters("brisque")
    covariance = pristine["covariance"]
    assert pristine["mean"].shape == (36,)
    assert torch.equal(covariance, covariance.T)
    assert torch.linalg.eigvalsh(covariance).min() > -1e-6
    assert regressor["support_vectors"].shape == (*regressor["dual_coef"].shape, 36)
    assert (regressor["feature_min"] < regressor["feature_max"]).all()
