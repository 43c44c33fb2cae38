"""A process that is killed leaves nothing half, and nothing that was finished is lost."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from made_models import make_frames
from made_videos import make_video

from skipsr.pipeline.manifest import load_manifest

_SERVER = """
import json, os, signal, sys
from pathlib import Path
import skipsr.backbones.seedvr2.backbone
from skipsr.loading import load_upscaler
from skipsr.pipeline.job import upscale_video
from skipsr.settings import JobSettings, RuntimeSettings, SkipSettings
for line in sys.stdin:
    source, target, weights, moment = json.loads(line)
    child = os.fork()
    if child == 0:
        def die_in_time(event, _):
            global moment
            if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
                moment -= 1
                if moment == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        upscaler = load_upscaler(
            "seedvr2:tiny", SkipSettings(dense=True),
            RuntimeSettings(weights=Path(weights), device="cpu"),
        )
        sys.addaudithook(die_in_time)
        job = JobSettings(scale=1, window=5, overlap=1, segment=0.3)
        upscale_video(source, target, upscaler, job)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Process:
    """Runs jobs, each in a process that may be killed at one of its steps in the file system."""

    def __init__(self, weights: Path) -> None:
        self._weights = weights
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, source: Path, target: Path, moment: int = 0) -> int:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        told = [str(source), str(target), str(self._weights), moment]
        self._server.stdin.write(json.dumps(told) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def close(self) -> None:
        self._server.communicate()


@pytest.fixture(scope="module")
def run(tiny_file: Path) -> Iterator[Process]:
    process = Process(tiny_file)
    yield process
    process.close()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("killed") / "in.mp4"
    return make_video(path, list(make_frames(22, 24, 32)), audio_seconds=0.8)


def packets(path: Path) -> list[tuple[object, ...]]:
    with av.open(str(path)) as container:
        return [(p.stream_index, p.pts, p.dts, bytes(p)) for p in container.demux()]


def finished(target: Path) -> int:
    manifest = load_manifest(target.with_name(f"{target.name}.job"))
    return 0 if manifest is None else manifest.frames


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.mp4", "out"])
def test_killed_again_and_again(run: Process, video: Path, tmp_path: Path, name: str):
    """Each time a little later than the time before, and every time at least as far."""
    whole, target = tmp_path / f"whole-{name}", tmp_path / name
    assert run(video, whole) == 0
    kept: list[int] = []
    for moment in (1, 2, 5, 7, 8, 9, 11):
        if run(video, target, moment) == 0 or target.exists():
            break
        kept.append(finished(target))
    assert kept == sorted(kept)
    assert len(kept) > 4
    assert kept[0] == 0 < kept[-1]
    if not target.exists():
        assert run(video, target) == 0
    if target.is_dir():
        for file in whole.iterdir():
            assert (target / file.name).read_bytes() == file.read_bytes()
        assert len(list(target.iterdir())) == 22
    else:
        assert packets(target) == packets(whole)
