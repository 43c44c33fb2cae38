"""The recurrent engine on regions: everything run is the dense network, nothing run is the plain
picture bit for bit, and in between it is the network with everything else set to zero."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from made_models import make_clip, perturb
from torch import Tensor

from skipsr.backbones.basicvsr.blocks import Trunk
from skipsr.backbones.basicvsr.config import PRESETS, BasicVSRConfig
from skipsr.backbones.basicvsr.frame_masks import FrameMasks
from skipsr.backbones.basicvsr.network import DIRECTIONS, BasicVSR
from skipsr.backbones.basicvsr.planes import upsample_bicubic
from skipsr.backbones.basicvsr.regional import run_regions
from skipsr.nn.warp import warp
from skipsr.skipping import regions as canvases
from skipsr.skipping.canvas import CanvasPlan
from skipsr.skipping.feather import feather
from skipsr.skipping.need import CELL
from skipsr.skipping.regions import Regions
from skipsr.skipping.route import over_pixels
from skipsr.tracing import Trace

SIZE = (22, 33)  # places: pixels at 4x, two by two of them at 2x
GRID = (6, 9)
CLIPS = {fold: make_clip(4, fold * SIZE[0], fold * SIZE[1]).frames for fold in (1, 2)}
CLOSE = {"atol": 2e-6, "rtol": 0}
STRENGTH = torch.tensor(1.4)
CONFIGS = {
    f"{4 // fold}x {name}": replace(PRESETS["tiny"], unshuffle=fold, hr_feat=hr)
    for fold in (1, 2)
    for name, hr in (("planes", None), ("full size", 6))
}


@pytest.fixture(scope="module", params=CONFIGS)
def model(request: pytest.FixtureRequest) -> BasicVSR:
    return made(CONFIGS[request.param])


def made(config: BasicVSRConfig) -> BasicVSR:
    torch.manual_seed(0)
    model = BasicVSR(config)
    perturb(model, spread=0.1)
    return model.eval().requires_grad_(False)


def clip_of(model: BasicVSR) -> Tensor:
    return CLIPS[model.config.unshuffle]


def plain_of(model: BasicVSR) -> Tensor:
    return upsample_bicubic(clip_of(model), model.config.unshuffle)


def run(
    model: BasicVSR,
    masks: list[FrameMasks],
    frames: Tensor | None = None,
    strength: Tensor | None = None,
) -> Tensor:
    frames = clip_of(model) if frames is None else frames
    out = torch.full((len(frames), 3, 4 * SIZE[0], 4 * SIZE[1]), float("nan"))
    for i, frame in enumerate(run_regions(model, frames, masks, out, strength=strength)):
        assert frame.data_ptr() == out[i].data_ptr()
    return out


def random_regions(share: float, strip: int, seed: int = 0) -> list[Regions]:
    generator = torch.Generator().manual_seed(seed)
    keeps = torch.rand(4, *GRID, generator=generator) < share
    return [Regions.of(keep, strip) for keep in keeps]


def test_everything_is_the_dense_network(model: BasicVSR):
    whole = Regions.of(torch.ones(GRID, dtype=torch.bool), 2)
    expected = model(clip_of(model)[None])[0].clamp(0, 1)
    torch.testing.assert_close(run(model, [FrameMasks(whole)] * 4), expected, **CLOSE)


def test_everything_in_strips_is_the_dense_network(model: BasicVSR):
    keep = torch.ones(GRID, dtype=torch.bool)
    expected = model(clip_of(model)[None])[0].clamp(0, 1)
    torch.testing.assert_close(run(model, [FrameMasks(Regions(keep, 2))] * 4), expected, **CLOSE)


def test_nothing_is_the_plain_picture_bit_for_bit(model: BasicVSR):
    nothing = Regions.of(torch.zeros(GRID, dtype=torch.bool), 2)
    assert torch.equal(run(model, [FrameMasks(nothing)] * 4), plain_of(model))


def test_where_nothing_is_run_no_flow_is_looked_for(monkeypatch: pytest.MonkeyPatch):
    model = made(CONFIGS["4x planes"])
    monkeypatch.setattr(model, "flows", None)
    nothing = Regions.of(torch.zeros(GRID, dtype=torch.bool), 2)
    assert torch.equal(run(model, [FrameMasks(nothing)] * 4, strength=STRENGTH), plain_of(model))


def test_frames_with_the_same_regions_share_their_canvases(monkeypatch: pytest.MonkeyPatch):
    model, plan_of, made_of = made(CONFIGS["4x full size"]), canvases._plan_of, list[int]()

    def noted(kept: Regions, pixels: int, *rest: Any) -> CanvasPlan:
        made_of.append(pixels)
        return plan_of(kept, pixels, *rest)

    monkeypatch.setattr(canvases, "_plan_of", noted)
    first, other, _, _ = random_regions(0.5, 2)
    run(model, [FrameMasks(first)] * 3 + [FrameMasks(other)])
    assert sorted(made_of) == [CELL, CELL, 2 * CELL, 2 * CELL, 4 * CELL, 4 * CELL]


def test_how_far_a_clip_is_is_told_frame_by_frame():
    """Each is visited twice: backward, then forward."""
    model, told = made(CONFIGS["4x planes"]), list[float]()
    with Trace(lambda _: told.append(trace.share)) as trace:
        run(model, [FrameMasks(each) for each in random_regions(0.5, 2)])
    assert sorted(set(told)) == [i / 8 for i in range(9)]
    assert told == sorted(told)


@pytest.mark.parametrize(("share", "strip"), [(0.3, 1), (0.5, 2), (0.7, 3)])
def test_in_between_it_is_the_masked_network(model: BasicVSR, share: float, strip: int):
    regions = random_regions(share, strip)
    found = run(model, [FrameMasks(each) for each in regions])
    assert not any(each._plans for each in regions)  # large ones at the finest levels
    masks = [over_pixels(each.keep, CELL, SIZE).float()[None, None] for each in regions]
    refined = masked(model, masks)
    shown = torch.stack([F.interpolate(m, scale_factor=4)[0] for m in masks]).bool()
    plain = plain_of(model)
    torch.testing.assert_close(found, torch.where(shown, refined, plain), **CLOSE)
    assert torch.equal(found[~shown.expand_as(found)], plain[~shown.expand_as(found)])


def test_the_cut_into_strips_changes_nothing(model: BasicVSR):
    regions = random_regions(0.5, 2)
    finer = [Regions(each.keep, 1) for each in regions]
    a, b = (run(model, [FrameMasks(each) for each in some]) for some in (regions, finer))
    torch.testing.assert_close(a, b, **CLOSE)


def test_everything_is_drawn_as_strongly_as_by_the_dense_network(model: BasicVSR):
    whole = Regions.of(torch.ones(GRID, dtype=torch.bool), 2)
    frames, steps = clip_of(model)[None], [model.dense_step(each) for each in DIRECTIONS]
    shape = (4, 1, 3, 4 * SIZE[0], 4 * SIZE[1])
    expected = torch.full(shape, float("nan"))
    for _ in model.run(frames, *steps, out=expected, strength=STRENGTH):
        pass
    found = run(model, [FrameMasks(whole)] * 4, strength=STRENGTH)
    torch.testing.assert_close(found, expected[:, 0], **CLOSE)
    stronger = torch.lerp(plain_of(model), model(frames)[0], STRENGTH).clamp(0, 1)
    torch.testing.assert_close(found, stronger, **CLOSE)


@pytest.mark.parametrize("faded", [False, True])
def test_strength_counts_from_the_plain_picture(model: BasicVSR, faded: bool):
    masks = [FrameMasks(r, None, r.keep if faded else None) for r in random_regions(0.5, 2)]
    usual, found = run(model, masks), run(model, masks, strength=STRENGTH)
    expected = torch.lerp(plain_of(model), usual, STRENGTH).clamp(0, 1)
    inside = (usual > 0) & (usual < 1)  # beyond, what was clamped cannot be told
    assert inside.float().mean() > 0.7
    torch.testing.assert_close(found[inside], expected[inside], **CLOSE)


def test_borders_fade_inside_what_is_kept(model: BasicVSR):
    regions = random_regions(0.5, 2)
    sharp = run(model, [FrameMasks(each) for each in regions])
    soft = run(model, [FrameMasks(each, None, each.keep) for each in regions])
    plain = plain_of(model)
    weight = [feather(each.keep, (4 * SIZE[0], 4 * SIZE[1]), 16) for each in regions]
    expected = torch.lerp(plain, sharp, torch.stack(weight)[:, None])
    inside = (sharp > 0) & (sharp < 1)  # beyond, what was clamped cannot be told
    assert inside.float().mean() > 0.7
    torch.testing.assert_close(soft[inside], expected[inside], **CLOSE)
    assert not torch.equal(soft, sharp)


def test_what_stands_still_is_shown_again(model: BasicVSR):
    """Nothing of it is run, it looks as one frame before, and its state is carried on."""
    frames, fold = clip_of(model)[:1].repeat(4, 1, 1, 1), model.config.unshuffle
    high, wide = 8 * fold, 12 * fold
    frames[2:, :, :high, :wide] = torch.rand(
        2, 3, high, wide, generator=torch.Generator().manual_seed(1)
    )
    whole = Regions.of(torch.ones(GRID, dtype=torch.bool), 2)
    corner = torch.zeros(GRID, dtype=torch.bool)
    corner[:2, :3] = True
    nothing = Regions.of(torch.zeros(GRID, dtype=torch.bool), 2)
    everywhere = torch.ones(GRID, dtype=torch.bool)
    masks = [
        FrameMasks(whole),
        FrameMasks(nothing, everywhere),
        FrameMasks(Regions.of(corner, 2), ~corner),
        FrameMasks(nothing, everywhere),
    ]
    found = run(model, masks, frames)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[2], found[3])
    outside = ~over_pixels(corner, CELL, SIZE).repeat_interleave(4, 0).repeat_interleave(4, 1)
    assert torch.equal(found[1][:, outside], found[2][:, outside])
    assert not torch.equal(found[1], found[2])
    # what is run though it stands still, as it lies between others, is known as it was run
    masks[3] = FrameMasks(whole)
    usual = run(model, masks, frames)[3]
    masks[2] = FrameMasks(Regions.of(corner, 2), everywhere)
    assert torch.equal(run(model, masks, frames)[3], usual)


def test_what_later_frames_tell_enters_through_the_last_still_frame(model: BasicVSR):
    """The first of frames that stand still is refined with the backward state of their last."""
    frames = clip_of(model)[[0, 0, 0, 3]]
    everywhere = torch.ones(GRID, dtype=torch.bool)
    whole, nothing = (Regions.of(mask, 2) for mask in (everywhere, ~everywhere))
    masks = [
        FrameMasks(whole, backward=nothing),
        FrameMasks(nothing, everywhere),
        FrameMasks(nothing, everywhere, backward=whole),
        FrameMasks(whole),
    ]
    found = run(model, masks, frames)
    one = torch.ones(1, 1, *SIZE)
    ahead, _ = model.flows(frames[None])
    folded = model.fold(frames[None])[0]
    later = _states(model.backward_trunk, ahead[:, 2:], [one, one], folded[[3, 2]])[1]
    (earlier,) = _states(model.forward_trunk, ahead, [one], folded[:1])
    expected = _upsample(model, frames[:1], later, earlier, one).clamp(0, 1)
    for i in range(3):
        torch.testing.assert_close(found[i : i + 1], expected, **CLOSE)
    (last,) = _states(model.backward_trunk, ahead, [one], folded[2:3])
    expected = _upsample(model, frames[:1], last, earlier, one).clamp(0, 1)
    torch.testing.assert_close(run(model, masks[:3], frames[:3])[:1], expected, **CLOSE)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_masked_forward_pass_is_that_network(model: BasicVSR, share: float):
    regions = random_regions(share, 2)
    masks = [over_pixels(each.keep, CELL, SIZE).float()[None, None] for each in regions]
    found = model.masked(clip_of(model)[None], torch.stack(masks, 1))[0].clamp(0, 1)
    shown = F.interpolate(torch.cat(masks), scale_factor=4)
    torch.testing.assert_close(found * shown, masked(model, masks) * shown, **CLOSE)


def masked(model: BasicVSR, masks: list[Tensor]) -> Tensor:
    """All frames through a network whose features are set to zero outside the masks."""
    clip = clip_of(model)
    ahead, back = model.flows(clip[None])
    folded = model.fold(clip[None])[0]
    later = list(_states(model.backward_trunk, ahead.flip(1), masks[::-1], folded.flip(0)))[::-1]
    earlier = _states(model.forward_trunk, back, masks, folded)
    frames = zip(clip.split(1), later, earlier, masks, strict=True)
    return torch.cat([_upsample(model, *each) for each in frames]).clamp(0, 1)


def _states(trunk: Trunk, flows: Tensor, masks: list[Tensor], frames: Tensor) -> list[Tensor]:
    states: list[Tensor] = []
    for i, mask in enumerate(masks):
        channels = trunk.main[0].out_channels
        state = torch.zeros(1, channels, *SIZE)  # type: ignore[arg-type]
        if i:
            state = warp(states[-1], flows[:, i - 1].permute(0, 2, 3, 1))
        x = trunk.enter(frames[i : i + 1], state) * mask
        for block in trunk.blocks:
            x = (x + block.conv2(F.relu(block.conv1(x)) * mask)) * mask
        states.append(x)
    return states


def _upsample(
    model: BasicVSR, frame: Tensor, later: Tensor, earlier: Tensor, mask: Tensor
) -> Tensor:
    x = F.leaky_relu(model.fusion(torch.cat((later, earlier), 1)), 0.1) * mask
    if model.config.hr_feat is None:
        added = F.pixel_shuffle(model.conv_last(x), 4)
    else:
        twice, fourfold = (F.interpolate(mask, scale_factor=factor) for factor in (2, 4))
        x = F.leaky_relu(F.pixel_shuffle(model.upconv1(x), 2), 0.1) * twice
        x = F.leaky_relu(F.pixel_shuffle(model.upconv2(x), 2), 0.1) * fourfold
        added = model.conv_last(F.leaky_relu(model.conv_hr(x), 0.1) * fourfold)
    return added + F.interpolate(frame, scale_factor=model.config.scale, mode="bilinear")
