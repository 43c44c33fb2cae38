"""The swap analysis: keeping all is the reconstruction, counts are those of the masks."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_clips import copy_with_broken
from made_models import make_frames
from PIL import Image

from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.backbones.seedvr2.token_skipping import TokenSkippingUpscaler
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.errors import MediaError, SettingsError
from skipsr.evaluation.clips import find_clips
from skipsr.evaluation.mask_results import MaskStudy, mask_report
from skipsr.evaluation.masks import TAUS, analyse_masks, down_then_up
from skipsr.evaluation.methods import denoiser_of, pad, pad_base, run_reconstruction, trim
from skipsr.evaluation.samples import read_sample
from skipsr.settings import EvalSettings, SkipSettings
from skipsr.skipping.oracle import oracle_keep, patch_errors

SETTINGS = EvalSettings(frames=5)
RECORD = {"model": "tiny", "data": "clips"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half noise, half flat, so that some tokens can be skipped."""
    root = tmp_path_factory.mktemp("clips")
    for seed, name in enumerate(("first", "second")):
        (root / name).mkdir()
        for index, frame in enumerate(make_frames(5, 64, 64, seed)):
            frame[:, 32 - 16 * seed :] = 90
            Image.fromarray(frame).save(root / name / f"{index}.png")
    return root


def analyse(clips: Path, upscaler: SeedVR2Upscaler, **skip: float) -> MaskStudy:
    settings = SkipSettings(**skip)  # type: ignore[arg-type]
    found = find_clips(clips, SETTINGS, truths=True)
    return analyse_masks(found, upscaler, settings, SETTINGS, RECORD)


@pytest.fixture(scope="module")
def study(clips: Path, tiny_upscaler: SeedVR2Upscaler) -> MaskStudy:
    return analyse(clips, tiny_upscaler)


def test_plainly_is_what_the_oracle_compares_with():
    frames = torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(0))
    error = (frames - down_then_up(frames)).square()
    first = F.avg_pool2d(error[0, :, 0].mean(0, keepdim=True), 16)
    later = F.avg_pool2d(error[0, :, 1:].mean((0, 1))[None], 16)
    assert torch.allclose(patch_errors(frames)[0], torch.cat((first, later)), atol=1e-6)


def test_keeping_all_swaps_nothing(clips: Path, tiny_upscaler: SeedVR2Upscaler):
    study = analyse(clips, tiny_upscaler, threshold=0.0)  # every probability reaches 0
    for swap in study.of("predictor"):
        assert swap.skipped == 0
        assert swap.swap["psnr_y"] == 100
        assert swap.swap["ssim_rgb"] == pytest.approx(1)
        assert swap.figures == swap.ceiling


def test_the_ceiling_is_the_reconstruction(
    clips: Path, study: MaskStudy, tiny_upscaler: SeedVR2Upscaler
):
    item = find_clips(clips, SETTINGS).items[0]
    sample = read_sample(item, SETTINGS, 8)
    assert sample.truth is not None
    frames = run_reconstruction(sample, tiny_upscaler).frames
    rounded, truth = (x.mul(255).round().double() for x in (frames, sample.truth))
    error = (rounded - truth).square().mean((1, 2, 3))
    expected = (10 * (255**2 / error).log10()).mean().item()
    assert study.swaps[0].ceiling["psnr_rgb"] == pytest.approx(expected, abs=1e-4)


def test_oracle_shares_and_swaps(clips: Path, study: MaskStudy, tiny_upscaler: SeedVR2Upscaler):
    """The oracle's share is counted anew, and its swap is made anew cell by cell."""
    item = find_clips(clips, SETTINGS).items[1]
    sample = read_sample(item, SETTINGS, 8)
    assert sample.truth is not None
    model = denoiser_of(tiny_upscaler)
    with torch.inference_mode():
        truth = pad(sample.truth, tiny_upscaler)
        keep = oracle_keep(truth)[0]
        latent, plain = model.encode(truth)[0], model.encode(down_then_up(truth))[0]
        wide = keep.repeat_interleave(2, 1).repeat_interleave(2, 2)[..., None]
        base = pad_base(sample, tiny_upscaler)
        mixed, whole = (
            trim(model.decode(x[None], base), sample.truth)
            for x in (torch.where(wide, latent, plain), latent)
        )
    swap = study.of("oracle")[1]
    assert swap.clip == "second"
    assert 0 < swap.skipped < 1
    assert swap.skipped == pytest.approx(1 - keep.float().mean().item())
    error = (mixed.mul(255).round() - whole.mul(255).round()).double().square().mean((1, 2, 3))
    expected = (10 * (255**2 / error.clamp_min(1e-9)).log10()).clamp(max=100).mean().item()
    assert swap.swap["psnr_rgb"] == pytest.approx(expected, abs=1e-3)


def test_sweeps(study: MaskStudy):
    shares = [point.skipped for point in study.taus]
    assert [point.tau for point in study.taus] == list(TAUS)
    assert shares == sorted(shares)
    at_paper = study.taus[3]
    assert at_paper.tau == pytest.approx(2e-4)
    assert at_paper.skipped == pytest.approx(np.mean([s.skipped for s in study.of("oracle")]))
    psnr = np.mean([s.swap["psnr_rgb"] for s in study.of("oracle")])
    assert at_paper.swap_psnr == pytest.approx(psnr, abs=1e-4)
    assert study.prediction is not None
    skipped = [point["skipped"] for point in study.prediction.sweep]
    assert skipped == sorted(skipped)
    assert study.prediction.thresholds[0.5] == study.prediction.counts
    assert study.prediction.sweep[9]["recall"] == study.prediction.counts.recall


def test_the_prediction_counts_every_token(study: MaskStudy):
    assert study.prediction is not None
    counts = study.prediction.counts
    assert counts.tokens == 2 * (2 * 4 * 4)
    figures = study.prediction.figures
    assert figures["skippable"] == pytest.approx(np.mean([s.skipped for s in study.of("oracle")]))
    assert figures["skipped"] == pytest.approx(np.mean([s.skipped for s in study.of("predictor")]))


def test_tau_moves_the_oracle(clips: Path, study: MaskStudy, tiny_model: SeedVR2):
    any_tau = replace(tiny_model.config.predictor, any_tau=True)
    model = SeedVR2(replace(tiny_model.config, predictor=any_tau)).eval()
    upscaler = TokenSkippingUpscaler("seedvr2:tiny", model, SkipSettings())
    coarse = analyse(clips, upscaler, tau=0.05)
    assert coarse.tau == 0.05
    for a, b in zip(coarse.of("oracle"), study.of("oracle"), strict=True):
        assert a.skipped > b.skipped


def test_a_model_without_predictor_has_only_the_oracle(clips: Path, tiny_model: SeedVR2):
    model = SeedVR2(tiny_model.config).eval()
    model.load_state_dict(tiny_model.state_dict())
    model.predictor = None
    upscaler = TokenSkippingUpscaler("seedvr2:tiny", model, SkipSettings())
    study = analyse(clips, upscaler)
    assert study.prediction is None
    assert study.masks == ["oracle"]
    report = mask_report(study)
    assert report.json()["thresholds"] == []
    assert "threshold |" not in report.markdown()


def test_broken_clips_are_named_and_the_others_analysed(
    clips: Path, study: MaskStudy, tiny_upscaler: SeedVR2Upscaler, tmp_path: Path
):
    folder = copy_with_broken(clips, tmp_path / "clips", "first")
    found = analyse(folder, tiny_upscaler)
    assert list(found.faults) == ["broken", "cut"]
    assert found.clips == ["first", "second"]
    assert (found.swaps, found.taus) == (study.swaps, study.taus)
    report = mask_report(found)
    assert report.summary["faults"] == report.json()["faults"] == found.faults
    assert "cut is left out: " in report.markdown()
    for name in study.clips:
        shutil.rmtree(folder / name)
    with pytest.raises(MediaError, match=r"4\.png"):
        analyse(folder, tiny_upscaler)


def test_what_cannot_be_analysed(clips: Path, tiny_upscaler: SeedVR2Upscaler, tmp_path: Path):
    settings = EvalSettings(metrics=("niqe",))
    with pytest.raises(SettingsError, match="niqe"):
        analyse_masks(
            find_clips(clips, settings, truths=True),
            tiny_upscaler,
            SkipSettings(),
            settings,
            RECORD,
        )
    low = tmp_path / "lq" / "a"
    low.mkdir(parents=True)
    Image.fromarray(make_frames(1, 64, 64)[0]).save(low / "0.png")
    with pytest.raises(SettingsError, match="compares with the truth, and no clip"):
        analyse(tmp_path, tiny_upscaler)
