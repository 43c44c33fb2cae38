"""How much memory a window takes is known beforehand."""

import subprocess
import sys
from pathlib import Path

import pytest
from made_videos import make_video, ramp

from skipsr.backbones.basicvsr import limits
from skipsr.backbones.basicvsr.backbone import BACKBONE
from skipsr.backbones.basicvsr.config import PRESETS
from skipsr.backbones.basicvsr.limits import limits_of
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.errors import SettingsError
from skipsr.limits import Footprint, Limits
from skipsr.pipeline import plan
from skipsr.pipeline.plan import plan_job, plan_windows
from skipsr.settings import JobSettings
from skipsr.train.run import export

NANO = limits_of(PRESETS["nano"])
HD, QHD = (720, 1280), (1440, 2560)
GIB = 2**30
# peak bytes of the process after one window of a textured clip, what is skipped as usual
RUN = """
import sys, torch
from pathlib import Path
from skipsr import Clip, RuntimeSettings, load_upscaler
from skipsr.tracing import peak_memory_gib
torch.set_num_threads(1)
height, width, frames = map(int, sys.argv[1:4])
noise = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
noise[:, : height // 2] = 0.5
clip = Clip(torch.stack([noise.roll(i, 2) for i in range(frames)]))
runtime = RuntimeSettings(weights=Path(sys.argv[4]), device="cpu")
upscaler = load_upscaler(runtime=runtime)
upscaler.upscale(clip, (2 * height, 2 * width))
print(round(peak_memory_gib() * 2**30))
"""


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["nano", "nano-x2"])
def test_a_window_takes_no_more_than_its_footprint(preset: str, tmp_path: Path):
    height, width, frames = 96, 160, 24
    file = BACKBONE.bundled.get(preset) or tmp_path / "untrained.safetensors"
    if not file.exists():
        export(BasicVSR(PRESETS[preset]), file, {})
    command = [sys.executable, "-c", RUN, *map(str, (height, width, frames, file))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    footprint = limits_of(PRESETS[preset]).footprint
    assert isinstance(footprint, Footprint)
    told = footprint.of(frames, height * width, 4 * height * width)
    assert 0.45 * told < int(done.stdout) < told


def test_windows_follow_what_is_free(monkeypatch: pytest.MonkeyPatch):
    found: list[int] = []
    for free in (4 * GIB, 8 * GIB, 64 * GIB, None):
        monkeypatch.setattr(plan, "free_memory", lambda free=free: free)
        found.append(plan_windows(HD, QHD, NANO, JobSettings())[0])
    assert found == sorted(found)
    assert 2 <= found[0] < found[1] < found[2] == found[3] < 60
    assert plan_windows((90, 160), (360, 640), NANO, JobSettings())[0] == 60


@pytest.mark.parametrize("memory", ["2.5GiB", "3GiB", "5000 MiB"])
def test_memory_is_obeyed(memory: str):
    settings = JobSettings(max_memory=memory)
    window = plan_windows(HD, QHD, NANO, settings)[0]
    assert isinstance(NANO.footprint, Footprint)
    assert settings.memory is not None
    pixels = 720 * 1280, 1440 * 2560
    assert NANO.footprint.of(window, *pixels) <= settings.memory
    assert NANO.footprint.of(window + 1, *pixels) > settings.memory


def test_too_little_is_refused_with_what_would_do(tmp_path: Path):
    source = make_video(tmp_path / "a.mp4", ramp(4, 96, 160))
    with pytest.raises(SettingsError, match=r"windows of 2 frames.*give at least (\d+)MiB") as told:
        plan_job(source, tmp_path / "b.mp4", NANO, JobSettings(max_memory="100MiB"))
    least = int(str(told.value).split("at least ")[1].split("MiB")[0])
    plan_job(source, tmp_path / "b.mp4", NANO, JobSettings(max_memory=f"{least}MiB"))
    with pytest.raises(SettingsError, match="too little for windows of 50 frames"):
        plan_windows(HD, QHD, NANO, JobSettings(max_memory="3GiB", window=50))
    with pytest.raises(SettingsError, match="give a short `window`"):
        plan_windows(HD, QHD, Limits(), JobSettings(max_memory="3GiB"))
    for wrong in ("3", "much", "-1GiB"):
        with pytest.raises(SettingsError, match=f"`max_memory` {wrong} is no size"):
            JobSettings(max_memory=wrong)


def test_on_a_card_its_own_memory_counts(monkeypatch: pytest.MonkeyPatch):
    card = limits_of(PRESETS["nano"], "cuda:1")
    free: dict[str, int | None] = {"cuda:1": 10 * GIB}
    monkeypatch.setattr(limits, "free_card_memory", free.get)
    window = plan_windows(HD, QHD, card, JobSettings(), free=64 * GIB)[0]
    assert window == plan_windows(HD, QHD, NANO, JobSettings(max_memory="9GiB"))[0]
    free["cuda:1"] = 80 * GIB
    large = (1080, 1920), (4320, 7680)
    window, overlap, found = plan_windows(*large, card, JobSettings(), free=256 * GIB)
    assert (window > 40, overlap) == (True, 5)
    shorter, _, beside = plan_windows(*large, card, JobSettings(), free=32 * GIB)
    assert found is not None
    assert beside is not None
    assert 2 < shorter < window
    assert beside.host <= 0.8 * 32 * GIB < found.host
    with pytest.raises(SettingsError, match=r"need 2\.6 GiB of the host's memory"):
        plan_windows(*large, card, JobSettings(), free=2 * GIB)
    free["cuda:1"] = None
    assert card.footprint is not None
    assert card.footprint.budget(2**40) is None


@pytest.mark.parametrize(("frames", "overlap"), [(1, 0), (2, 0), (3, 1), (12, 1), (30, 5)])
def test_no_more_frames_are_planned_than_there_are(frames: int, overlap: int):
    window, shared, found = plan_windows(
        (90, 160), (360, 640), NANO, JobSettings(max_memory="4GiB"), frames=frames
    )
    assert (window, shared) == (frames, overlap)
    assert found is not None
    assert isinstance(NANO.footprint, Footprint)
    assert found.peak == NANO.footprint.of(frames, 90 * 160, 360 * 640)
    assert found.reasons == (f"window: {frames} frame{'s' * (frames > 1)}; as many as are of use",)


def test_windows_of_two_share_nothing():
    """Sharing one each frame would be run twice."""
    assert [NANO.overlap_of(window) for window in (1, 2, 3, 12, 13)] == [0, 0, 1, 1, 5]
