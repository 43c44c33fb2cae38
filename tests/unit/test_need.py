"""The need predictor: any size, any tau, no special borders, strict files."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from made_models import perturb
from safetensors.torch import save_file
from torch import Tensor

from skipsr.errors import WeightsError
from skipsr.nn.box import box_mean
from skipsr.skipping.need import CELL, HEADS, Need, NeedPredictor, features, load_need

TAUS = (1e-6, 5e-5, 2e-4, 1e-2)


@pytest.fixture
def predictor() -> NeedPredictor:
    torch.manual_seed(0)
    made = NeedPredictor()
    perturb(made)
    return made.eval().requires_grad_(False)


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def test_features_are_what_the_weights_were_trained_on():
    colours = torch.eye(3)[..., None, None].expand(3, 3, 8, 8)
    contrast, luma, energy = features(colours).split((16, 16, 3), 1)
    assert not contrast.any()
    expected = 4 * (torch.tensor([0.299, 0.587, 0.114]) - 0.5)
    torch.testing.assert_close(luma, expected.reshape(3, 1, 1, 1).expand_as(luma))
    assert (energy == -2).all()
    frame = noise(1, 3, 4, 4)
    found = features(frame)[0, :, 0, 0]
    gap = (frame - box_mean(frame, 2))[0].flatten(1)
    torch.testing.assert_close(found[32:], (gap.square().mean(1) / 1e-6).log1p() / 2 - 2)
    grey = (gap * torch.tensor([[0.299], [0.587], [0.114]])).sum(0)
    torch.testing.assert_close(found[:16], 4 * grey.sign() * grey.abs().sqrt())


@pytest.mark.parametrize(("h", "w"), [(1, 1), (3, 17), (16, 8), (45, 30)])
def test_every_size_has_a_need_for_each_cell(predictor: NeedPredictor, h: int, w: int):
    need = predictor(noise(2, 3, h, w))
    shape = (2, len(HEADS), math.ceil(h / CELL), math.ceil(w / CELL))
    assert need.mean.shape == need.spread.shape == shape
    assert need.mean.dtype == need.spread.dtype == torch.float32
    assert need.mean.isfinite().all()
    assert (need.spread > 0).all()


def test_it_is_light():
    assert sum(p.numel() for p in NeedPredictor().parameters()) <= 150_000


def test_frames_are_read_one_by_one(predictor: NeedPredictor):
    frames = noise(3, 3, 20, 24)
    together = predictor(frames)
    for i in range(3):
        torch.testing.assert_close(predictor(frames[i : i + 1]).mean[0], together.mean[i])


def test_probability_is_that_of_an_error_above_tau(predictor: NeedPredictor):
    need = predictor(noise(1, 3, 24, 24))
    found = torch.stack([need.probability(tau) for tau in TAUS])
    for more, less in pairwise(found):
        assert (more >= less).all()
        assert (more > less)[(less < 0.99) & (more > 0.01)].all()  # elsewhere both may be rounded
    even = Need(torch.full((1, 1, 1, 1), math.log(2e-4)), torch.ones(1, 1, 1, 1))
    assert even.probability(2e-4).item() == pytest.approx(0.5)
    assert even.probability(2e-4 / math.e).item() == pytest.approx(1 / (1 + math.exp(-1)))


def test_borders_of_a_flat_picture_are_as_its_middle(predictor: NeedPredictor):
    mean = predictor(torch.full((1, 3, 50, 62), 0.3)).mean
    torch.testing.assert_close(mean, mean[:, :, :1, :1].expand_as(mean), rtol=0, atol=1e-4)


def test_what_is_repeated_beyond_the_frame_changes_nothing(predictor: NeedPredictor):
    frames = noise(1, 3, 22, 33)
    whole = torch.nn.functional.pad(frames, (0, 3, 0, 2), mode="replicate")
    torch.testing.assert_close(predictor(frames).mean, predictor(whole).mean)


# files


def test_a_file_gives_the_same_predictor(predictor: NeedPredictor, tmp_path: Path):
    predictor.half().float()  # files hold half precision
    tensors = {name: value.half() for name, value in predictor.state_dict().items()}
    save_file(tensors, tmp_path / "need.safetensors")
    loaded, frames = load_need(tmp_path / "need.safetensors"), noise(1, 3, 12, 12)
    assert not loaded.training
    assert torch.equal(loaded(frames).mean, predictor(frames).mean)


def test_files_that_do_not_fit(predictor: NeedPredictor, tmp_path: Path):
    tensors = predictor.state_dict()
    tensors.popitem()
    save_file(tensors, tmp_path / "less.safetensors")
    with pytest.raises(WeightsError, match="do not fit the need predictor: 1 missing"):
        load_need(tmp_path / "less.safetensors")
    with pytest.raises(WeightsError):
        load_need(tmp_path / "none.safetensors")
