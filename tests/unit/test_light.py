"""The light upsampler: what it adds, where it is shown, and its file."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from made_models import make_clip
from torch import Tensor

from skipsr.backbones.basicvsr.upscaler import BasicVSRUpscaler
from skipsr.clip import Clip
from skipsr.errors import WeightsError
from skipsr.loading import load_upscaler
from skipsr.nn.resize import resize_bicubic
from skipsr.settings import DType, RuntimeSettings, SkipSettings
from skipsr.skipping.light import FOLDS, LightUpsampler, LightUpsamplers, load_light
from skipsr.train.run import export
from skipsr.video import open_source

SAMPLE = Path(str(files("skipsr.assets"))) / "sample.mp4"
MODELS = [*FOLDS]


def upscaler(
    model: str, *, dtype: DType = "float32", detail: float = 0.5, dense: bool = False
) -> BasicVSRUpscaler:
    runtime = RuntimeSettings(device="cpu", dtype=dtype)
    found = load_upscaler(model, SkipSettings(dense=dense), runtime, {"detail": detail})
    at = getattr(found, "at", None)  # of the networks of one name, the one that enlarges by four
    found = found if at is None else at(4)
    assert isinstance(found, BasicVSRUpscaler)
    return found


def size_of(model: str, clip: Clip) -> tuple[int, int]:
    scale = 4 // FOLDS[model]
    return scale * clip.size[0], scale * clip.size[1]


def nothing(frames: Tensor) -> Tensor:
    """A mask that keeps no cell."""
    t, _, h, w = frames.shape
    return torch.zeros(t, -(-h // 4), -(-w // 4), dtype=torch.bool)


@pytest.mark.parametrize("fold", FOLDS.values())
def test_an_untrained_one_adds_nothing(fold: int):
    light = LightUpsampler(3 * fold**2)
    added = light(torch.rand(2, 3 * fold**2, 9, 13))
    assert torch.equal(added, torch.zeros(2, 48, 9, 13))


def test_borders_are_repeated():
    light = load_light("skipvsr:nano")
    assert light is not None
    frames = torch.rand(1, 3, 12, 16)
    around = F.pad(frames, (7,) * 4, mode="replicate")
    torch.testing.assert_close(light(around)[..., 7:-7, 7:-7], light(frames), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("detail", [0.0, 0.5])
@pytest.mark.parametrize("model", MODELS)
def test_nothing_run_is_what_it_makes(model: str, detail: float, dtype: DType):
    """Bit for bit, and not what bicubic upsampling gives."""
    chosen, clip = upscaler(model, dtype=dtype, detail=detail), make_clip(3, 30, 44)
    chosen.need, size = nothing, size_of(model, clip)
    found = chosen.upscale(clip, size)
    assert found.computed == 0
    assert torch.equal(found.clip.frames, chosen.upsample(clip, size).frames)
    gap = (found.clip.frames - resize_bicubic(clip.frames, size)).abs()
    assert 0.001 < gap.mean() < 0.05


@pytest.mark.parametrize("strength", [None, 0.7])
@pytest.mark.parametrize("model", MODELS)
def test_where_most_stands_still_it_is_no_other(model: str, strength: float | None):
    """Though it then sees the rows alone in which something has changed."""
    chosen, clip = upscaler(model), make_clip(4, 64 * FOLDS[model], 44 * FOLDS[model])
    frames = clip.frames[:1].repeat(4, 1, 1, 1)
    middle = slice(30 * FOLDS[model], 36 * FOLDS[model])
    frames[1:, :, middle, middle] = clip.frames[1:, :, middle, middle]
    frames[3, :, 0] = 0.5  # and the top moves as well
    clip, chosen.need, size = replace(clip, frames=frames), nothing, size_of(model, clip)
    told = None if strength is None else lambda *_: torch.tensor(strength)
    chosen.strength = told  # pyright: ignore[reportAttributeAccessIssue]
    found = chosen.upscale(clip, size).clip.frames
    expected = chosen.upsample(clip, size).frames
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert not torch.equal(found[1], found[0])


def test_grey_clips_stay_grey():
    chosen, clip = upscaler("skipvsr:nano"), make_clip(2, 24, 24)
    clip = replace(clip, frames=clip.frames.mean(1, keepdim=True).expand(-1, 3, -1, -1))
    chosen.need, size = nothing, size_of("skipvsr:nano", clip)
    shown = chosen.upsample(clip, size).frames
    assert torch.equal(shown[:, 0], shown[:, 1])
    assert torch.equal(shown, chosen.upscale(clip, size).clip.frames)


@pytest.mark.parametrize("model", MODELS)
def test_it_is_nearer_to_the_network_than_bicubic_is(model: str):
    """On the sample, by a third of the squared difference or more."""
    with open_source(SAMPLE) as source:
        clip = next(source.clips(5, 0))
    dense, size = upscaler(model, dense=True), size_of(model, clip)
    whole = dense.upscale(clip, size).clip.frames
    shown, plain = dense.upsample(clip, size).frames, resize_bicubic(clip.frames, size)
    ours, theirs = ((whole - frames).square().mean() for frames in (shown, plain))
    assert ours < 0.67 * theirs


def test_strength_holds_for_it_as_for_the_network():
    chosen, clip = upscaler("skipvsr:nano", detail=0.0), make_clip(2, 24, 24)
    size = size_of("skipvsr:nano", clip)
    shown = [chosen.upsample(clip, size).frames, resize_bicubic(clip.frames, size)]
    chosen.strength = lambda *_: torch.tensor(1.5)  # pyright: ignore[reportAttributeAccessIssue]
    shown.append(chosen.upsample(clip, size).frames)
    faint, plain, strong = (frames[..., 8:-8, 8:-8] for frames in shown)  # whose borders differ
    inside = (faint > 0) & (faint < 1) & (strong > 0) & (strong < 1)
    expected = torch.lerp(plain, faint, 1.5)
    torch.testing.assert_close(strong[inside], expected[inside], atol=1e-5, rtol=0)


def test_other_models_show_bicubic():
    assert load_light("skipvsr:x4") is None
    assert load_light("seedvr2:nano") is None


def test_files(tmp_path: Path):
    lights = LightUpsamplers()
    path = export(lights, tmp_path / "light.safetensors", {})
    found = load_light("skipvsr:nano", path)
    assert found is not None
    assert torch.equal(found(torch.rand(1, 3, 8, 8)), torch.zeros(1, 48, 8, 8))
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match=r"light\.safetensors"):
        load_light("skipvsr:nano", path)
