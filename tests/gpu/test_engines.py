"""Both engines as loaded on a card, against the processor in float32; and a training step."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_models import make_clip, make_model, random
from torch import Tensor, nn
from torch.nn import functional

from skipsr.backbones.basicvsr.config import PRESETS
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.backbones.contract import arrange
from skipsr.backbones.seedvr2.execution import TIGHTEST, CanvasPeaks, CanvasRoom, Execution
from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.limits import MemoryPlan
from skipsr.loading import find_model, load_upscaler
from skipsr.nn import attention
from skipsr.nn.landing import land
from skipsr.nn.tails import TailMemory
from skipsr.pipeline.job import upscale_video
from skipsr.settings import RuntimeSettings, SkipSettings
from skipsr.tracing import peak_memory_gib
from skipsr.train.batches import generators_of
from skipsr.train.captured import CapturedTurn
from skipsr.train.loop import learning_rate, move, optimizer_of, prepare, take_turn
from skipsr.train.objective import ClipBatch
from skipsr.train.objectives.finetune import OneStepObjective
from skipsr.train.objectives.reconstruct import ReconstructObjective
from skipsr.train.parallel import Parallel
from skipsr.train.settings import TrainSettings

CLIP, SIZE = make_clip(9, 40, 56), (160, 224)
LAST = f"cuda:{max(0, torch.cuda.device_count() - 1)}"  # another than the current one, if there is
WAYS = {"dense": SkipSettings(dense=True), "regions": SkipSettings(budget=0.5), "paper": None}
PAPERS = {"seedvr2:nano": "tokens", "skipvsr:nano": "blocks"}


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("model", ["seedvr2:nano", "skipvsr:nano"])
@pytest.mark.parametrize("how", WAYS)
def test_a_card_gives_what_the_processor_gives(model: str, how: str):
    skip, options = WAYS[how], {"skip": PAPERS[model] if how == "paper" else "all"}
    cpu = RuntimeSettings(device="cpu", dtype="float32")
    expected = load_upscaler(model, skip, cpu, options).upscale(CLIP, SIZE, seed=1)
    for dtype, tolerance in (("float32", 2e-3), ("bfloat16", 0.05), ("float16", 0.03)):
        card = RuntimeSettings(device=LAST, dtype=dtype)  # type: ignore[arg-type]
        upscaler = load_upscaler(model, skip, card, options)
        assert upscaler.device == LAST
        found = upscaler.upscale(CLIP, SIZE, seed=1)
        assert found.clip.frames.is_cpu
        error = (found.clip.frames - expected.clip.frames).abs().mean().item()
        assert error < tolerance, (dtype, error)


def test_frames_land_whole_while_the_card_goes_on():
    frames = torch.rand(40, 3, 270, 480, device=LAST)
    result = torch.empty(40, 3, 270, 470)

    def pieces() -> Iterator[Tensor]:
        for part in frames.split(3):
            piece = part + 1
            yield piece[..., :470]
            piece.fill_(0)  # its memory is free again at once

    land(pieces(), result)
    assert torch.equal(result, frames.cpu()[..., :470] + 1)


def test_a_job_reports_its_own_card(small_video: Path, tmp_path: Path):
    upscaler = load_upscaler("seedvr2:nano", None, RuntimeSettings(device=LAST))
    report = upscale_video(small_video, tmp_path / "out.mp4", upscaler)
    assert report.device == LAST
    assert report.peak_memory_gib == peak_memory_gib(LAST) > 0
    assert report.seconds["decode"] > 0
    stages = sum(v for k, v in report.seconds.items() if k not in ("read", "write", "total"))
    assert stages <= 1.05 * report.seconds["total"]


def test_a_training_step_in_half_precision(monkeypatch: pytest.MonkeyPatch):
    device = torch.device("cuda", 0)
    model = make_model().to(device)
    assert isinstance(model, SeedVR2)
    doors: set[tuple[torch.dtype, ...]] = set()
    stream: set[torch.dtype] = set()
    real = attention.packed_attention

    def note(q: Tensor, k: Tensor, v: Tensor, lengths: attention.Lengths) -> Tensor:
        doors.add((q.dtype, k.dtype, v.dtype))
        return real(q, k, v, lengths)

    def enter(_block: nn.Module, given: tuple[Tensor, ...]) -> None:
        stream.update(x.dtype for x in given[:2])

    monkeypatch.setattr("skipsr.backbones.seedvr2.attention.packed_attention", note)
    for block in model.dit.blocks:
        block.register_forward_pre_hook(enter)
    settings = TrainSettings(model="seedvr2:tiny", steps=2, batch=1, warmup=1, bfloat16=True)
    objective, parallel = OneStepObjective(), Parallel(device)
    (phase,) = objective.phases(model)
    phase.trained.requires_grad_(True)
    high = random(1, 3, 5, 64, 64).clamp(-2, 2) / 4 + 0.5
    batch = ClipBatch(high, high.roll(1, -1), generators_of(settings, 0, [0]))
    moved = prepare(batch, model, objective, settings, parallel)
    found = take_turn(phase, optimizer_of(phase, settings), moved, settings, 0, parallel)
    assert 0 < found["gradient"] < 1e4
    assert doors == {(torch.bfloat16,) * 3}
    assert stream == {torch.bfloat16}


def test_recorded_steps_are_the_steps():
    """A CUDA graph of a training step gives the weights that the steps themselves give."""
    clips = [random(2, 3, 5, 64, 64, seed=i).clamp(-2, 2) / 4 + 0.5 for i in range(6)]

    def trained(*, recorded: bool) -> tuple[dict[str, Tensor], float]:
        torch.manual_seed(0)
        model = BasicVSR(PRESETS["tiny"]).to(LAST).requires_grad_(True)
        settings = TrainSettings(model="skipvsr:tiny", steps=6, batch=2, warmup=1, clip_norm=0.05)
        (phase,) = ReconstructObjective(structure=0.1).phases(model)
        optimizer = optimizer_of(phase, settings, capturable=recorded)
        captured = CapturedTurn(phase, optimizer, settings)
        figures: Mapping[str, Tensor | float] = {}
        for step, high in enumerate(clips):
            low = functional.avg_pool3d(high, (1, 4, 4))
            batch = move(ClipBatch(high, low, ()), torch.device(LAST))
            if recorded:
                figures = captured(batch, learning_rate(settings, step))
            else:
                alone = Parallel(torch.device(LAST))
                figures = take_turn(phase, optimizer, batch, settings, step, alone)
        return {k: v.detach().cpu() for k, v in model.state_dict().items()}, float(figures["loss"])

    (expected, loss), (found, same) = trained(recorded=False), trained(recorded=True)
    assert same == pytest.approx(loss, rel=1e-3)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=2e-4, rtol=2e-3, msg=name)


def test_tails_that_wait_are_pinned():
    """Though they are parts of larger pieces, and of another dtype."""
    memory = TailMemory(0)
    like = torch.empty(0, dtype=torch.bfloat16, device=LAST)
    assert all(memory.take(like, (2, 3, count)).is_pinned() for count in (5, 700))


NO_ROOM = CanvasRoom(memory=0, peaks=CanvasPeaks(first=0, always=0, layers={2: 0}, tails=1), away=1)
TIGHT = {"bounds": replace(TIGHTEST, band=2**16, frames=2), "canvases": NO_ROOM}
PLACES = [
    Execution(weights="in turn"),
    Execution(weights="streamed"),
    Execution(**TIGHT),
    Execution(weights="streamed", **TIGHT),
]


@pytest.mark.parametrize("budget", [None, 0.5])
@pytest.mark.parametrize("execution", PLACES, ids=["turns", "streamed", "tails", "both"])
def test_what_waits_on_the_host_comes_in_time(execution: Execution, budget: float | None):
    """Weights and tails: several windows in a row are those of a model that is all on the card."""
    skip = SkipSettings(dense=True) if budget is None else SkipSettings(budget=budget)
    model = find_model("seedvr2:nano", RuntimeSettings(device=LAST, dtype="float32"))
    clips = [make_clip(9, 40, 56, seed=seed) for seed in range(3)]

    def found(execution: Execution) -> list[Tensor]:
        plan = MemoryPlan(window=9, stages={}, residence=execution.weights, execution=execution)
        upscaler = model.load(skip, plan)
        arrange(upscaler, plan)
        return [upscaler.upscale(clip, SIZE, seed=1).clip.frames for clip in clips]

    for a, b in zip(found(execution), found(Execution()), strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0)
