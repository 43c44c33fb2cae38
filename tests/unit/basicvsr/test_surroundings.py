"""What is guessed beyond what is run: where it is put, for which weights, and what it gains."""

from importlib.resources import files
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from made_models import make_clip
from safetensors.torch import load_file, save_file
from torch import Tensor

from skipsr.backbones.basicvsr.beyond import surroundings_of, trace
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.backbones.basicvsr.planes import unfold_onto
from skipsr.backbones.basicvsr.upscaler import BasicVSRUpscaler
from skipsr.errors import WeightsError
from skipsr.loading import load_networks, load_upscaler
from skipsr.nn.warp import warp
from skipsr.settings import RuntimeSettings, SkipSettings
from skipsr.skipping.light import FOLDS, load_light, rows_at
from skipsr.skipping.route import over_pixels
from skipsr.skipping.surroundings import SurroundingsByModel, load_surroundings
from skipsr.train.run import export
from skipsr.video import open_source
from skipsr.weights.load import ASSETS

MODELS = [*FOLDS]
SAMPLE = Path(str(files("skipsr.assets"))) / "sample.mp4"


def upscaler(model: str, weights: Path | None = None, **options: float) -> BasicVSRUpscaler:
    runtime = RuntimeSettings(device="cpu", dtype="float32", weights=weights)
    found = load_upscaler(model, SkipSettings(), runtime, options)
    at = getattr(found, "at", None)  # of the networks of one name, the one that enlarges by four
    found = found if at is None else at(4)
    assert isinstance(found, BasicVSRUpscaler)
    return found


def network(model: str) -> BasicVSR:
    found = load_networks(model, ASSETS / f"skipvsr-{model.partition(':')[2]}.safetensors")
    assert isinstance(found, BasicVSR)
    return found.float().eval().requires_grad_(False)


def kept(frames: Tensor, fold: int) -> Tensor:
    """A mask of strips of two rows: other cells in every frame, and a corner of the picture."""
    t, _, h, w = frames.shape
    generator = torch.Generator().manual_seed(0)
    keep = torch.rand(t, -(-h // fold // 8), -(-w // fold // 4), generator=generator) < 0.4
    keep[:, 0, 0] = True
    return keep.repeat_interleave(2, 1)[:, : -(-h // fold // 4)]


@torch.no_grad()
def guided(model: BasicVSR, name: str, frames: Tensor, masks: Tensor) -> Tensor:
    """The network on whole frames `t 3 h w`: where `masks`, `t 1 h w` of places, are 0, layers hold
    what is guessed beside what is run, and zero elsewhere."""
    light, surroundings = load_light(name), load_surroundings(name)
    assert light is not None
    assert surroundings is not None
    folded, size = model.fold(frames[None])[0], masks.shape[2:]
    everywhere = torch.arange(size[0] * size[1])
    guesses = torch.stack(
        [surroundings(rows_at(light.hidden(frame[None]), everywhere)) for frame in folded]
    )
    guesses = guesses.transpose(2, 3).unflatten(3, size)  # t layers c h w
    beside = F.max_pool2d(masks, 3, 1, 1) - masks
    trunk_layers = guesses.shape[1] // 2

    def put(i: int, x: Tensor, layer: int) -> Tensor:
        return x * masks[i] + guesses[i, layer] * beside[i]

    def step(first: int, i: int, state: Tensor | None, flow: Tensor | None) -> Tensor:
        trunk = model.backward_trunk if first == 0 else model.forward_trunk
        if state is None or flow is None:
            state = torch.zeros(1, model.config.num_feat, *size)
        else:
            state = warp(state, flow.permute(0, 2, 3, 1))
        x = put(i, trunk.enter(folded[i : i + 1], state), first)
        for n, block in enumerate(trunk.blocks):
            y = put(i, F.relu(block.conv1(x)), first + 2 * n + 1)
            x = put(i, x + block.conv2(y), first + 2 * n + 2)
        return x * masks[i]

    to_next, to_previous = model.flows(frames[None])
    state, backward = None, list[Tensor]()
    for i in reversed(range(len(frames))):
        flow = to_next[:, i] if state is not None else None
        state = step(0, i, state, flow)
        backward.append(state)
    state, found = None, list[Tensor]()
    for i in range(len(frames)):
        flow = to_previous[:, i - 1] if state is not None else None
        state = step(trunk_layers, i, state, flow)
        fused = put(i, model.fuse(backward.pop(), state), 2 * trunk_layers)
        found.append(unfold_onto(frames[i : i + 1], model.conv_last(fused), None, None))
    return torch.cat(found).clamp(0, 1)


@pytest.mark.parametrize("model", MODELS)
def test_canvases_hold_what_is_guessed_beside_what_is_run(model: str):
    chosen, fold = upscaler(model, detail=0.0), FOLDS[model]
    clip = make_clip(3, 32 * fold, 44 * fold)
    keep, size = kept(clip.frames, fold), (128, 176)
    chosen.need = lambda _: keep
    found = chosen.upscale(clip, size)
    run = found.compute_map.fractions[:, None]  # short gaps are run as well
    masks = over_pixels(run, 4, (32, 44))
    expected = guided(network(model), model, clip.frames, masks)
    inside = -F.max_pool2d(-over_pixels(masks, 4, size), 3, 1, 1)  # the last pixels are blended
    assert 0.2 < inside.mean() < 0.8
    torch.testing.assert_close(found.clip.frames * inside, expected * inside, atol=2e-5, rtol=0)


@pytest.mark.parametrize("model", MODELS)
def test_what_is_run_is_nearer_to_whole_frames_for_it(model: str):
    with open_source(SAMPLE) as source:
        clip = next(source.clips(4, 0))
    chosen, whole, fold = upscaler(model), upscaler(model), FOLDS[model]
    keep, scale = kept(clip.frames, fold), 4 // fold
    size = scale * clip.size[0], scale * clip.size[1]
    chosen.need, whole.need = (lambda _: keep), None
    dense = whole.upscale(clip, size).clip.frames
    shown = over_pixels(keep.float()[:, None], 16, size)
    guided = (chosen.upscale(clip, size).clip.frames - dense).mul(shown).square().mean()
    chosen._surroundings = None
    alone = (chosen.upscale(clip, size).clip.frames - dense).mul(shown).square().mean()
    assert guided < 0.85 * alone


def test_other_weights_have_none(tmp_path: Path):
    model = network("skipvsr:nano")
    assert surroundings_of("skipvsr:nano", model) is not None
    assert surroundings_of("skipvsr:nano", model.bfloat16()) is not None
    assert surroundings_of("skipvsr:x4", model) is None
    own = load_file(ASSETS / "skipvsr-nano.safetensors")
    own["fusion.bias"] = own["fusion.bias"] + 0.1
    save_file(own, tmp_path / "own.safetensors")
    assert upscaler("skipvsr:nano", tmp_path / "own.safetensors")._surroundings is None


@pytest.mark.parametrize("detail", [0.0, 0.5, 1.0])
def test_every_detail_has_them(detail: float):
    assert upscaler("skipvsr:nano", detail=detail)._surroundings is not None


def test_a_trace_is_what_a_dense_run_holds():
    model, frames = network("skipvsr:nano"), make_clip(3, 16, 24).frames
    layers, c = trace(model, frames[None])[0], model.config.num_feat
    assert layers.shape == (3, 27 * c, 16, 24)
    x, y, after = (layers[:, i * c : (i + 1) * c] for i in (13, 14, 15))  # the forward trunk's
    block = next(iter(model.forward_trunk.blocks))
    torch.testing.assert_close(F.relu(block.conv1(x)), y, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(x + block.conv2(y), after, atol=1e-5, rtol=1e-5)
    shown = unfold_onto(frames, model.conv_last(layers[:, -c:]), None, None)
    torch.testing.assert_close(shown, model(frames[None])[0], atol=1e-5, rtol=0)


def test_files(tmp_path: Path):
    path = export(SurroundingsByModel(), tmp_path / "surroundings.safetensors", {})
    found = load_surroundings("skipvsr:nano", path)
    assert found is not None
    assert torch.equal(found(torch.rand(5, 80)), torch.zeros(27, 5, 48))
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match=r"surroundings\.safetensors"):
        load_surroundings("skipvsr:nano", path)
