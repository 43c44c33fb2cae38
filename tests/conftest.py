"""What all tests share: few threads, equal examples in each run, tiny models."""

import gc
import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

HERE = Path(__file__).parent
# the tests are no packages: helper modules beside them are imported by their own names
sys.path[:0] = [str(HERE), *(str(HERE / part) for part in ("unit/video", "unit/web", "parity"))]

import made_models  # noqa: E402

from skipsr.backbones.seedvr2.config import PRESETS  # noqa: E402
from skipsr.backbones.seedvr2.model import SeedVR2  # noqa: E402
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler  # noqa: E402
from skipsr.settings import SkipSettings  # noqa: E402

# two workers side by side have a core each, and so has what they start
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(min(2, int(os.environ.get("OMP_NUM_THREADS", "2"))))
os.environ["SKIPSR_HOME"] = str(HERE / "nothing-fetched")  # not what whoever runs them has fetched
settings.register_profile("fixed", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("fixed")


def pytest_collection_finish() -> None:
    """Torch and the tests themselves stay: the collector need not look through them each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def no_matrix_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """For small frames that are to be skipped in part: such a unit would run them whole."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)


@pytest.fixture(scope="session")
def tiny_model() -> SeedVR2:
    """The tiny preset with random weights everywhere; do not change it."""
    return made_models.make_model()


@pytest.fixture(scope="session")
def tiny_upscaler(tiny_model: SeedVR2) -> SeedVR2Upscaler:
    """Dense, float32, on the CPU."""
    return SeedVR2Upscaler("seedvr2:tiny", tiny_model, SkipSettings(dense=True))


@pytest.fixture(scope="session")
def tiny_file(tiny_model: SeedVR2, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a weight file."""
    from skipsr.train.run import export

    return export(tiny_model, tmp_path_factory.mktemp("weights") / "tiny.safetensors", {})


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> SeedVR2:
    """`seedvr2:3b` and `7b`, published in parts, as small as tiny; a 3b."""
    for name, config in made_models.PUBLISHED.items():
        monkeypatch.setitem(PRESETS, name, config)
    return made_models.make_model(made_models.PUBLISHED["3b"])


@pytest.fixture(scope="session")
def small_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of 32x24, H.264, with a tone."""
    from made_videos import make_video

    return make_video(
        tmp_path_factory.mktemp("video") / "small.mp4",
        list(made_models.make_frames(6, 24, 32)),
        audio_seconds=0.25,
    )
