"""Two processes compute what one does: data parallel, sharded, and sharing one clip's tokens."""

import subprocess
import sys
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
import spread
import torch
from made_models import make_frames
from PIL import Image
from safetensors.torch import load_file

from skipsr.errors import SettingsError
from skipsr.train.parallel import Parallel
from skipsr.train.run import RunPaths, run

alone = cache(lambda name: spread.step(name, 1))  # an objective in this process


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote; starting them costs more than all they do."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "data").mkdir()
    for i in range(2):
        Image.fromarray(make_frames(1, 90, 72, seed=i)[0]).save(folder / "data" / f"{i}.png")
    done = subprocess.run(
        [sys.executable, spread.__file__, str(folder / "data"), str(folder)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def assert_equal(one: spread.Gradients, two: spread.Gradients) -> None:
    assert one.keys() == two.keys()
    for phase, found in one.items():
        assert found.keys() == two[phase].keys()
        assert any(x.abs().max() > 1e-4 for x in found.values())
        for name, value in found.items():
            torch.testing.assert_close(two[phase][name], value, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("name", spread.DIVIDED)
def test_two_processes_with_a_clip_each_equal_one_with_both(name: str, two: Path):
    assert_equal(alone(name), torch.load(two / "divided.pt", weights_only=True)[name])


@pytest.mark.parametrize("name", spread.SHARED)
def test_two_processes_that_share_tokens_equal_one(name: str, two: Path):
    """Also where a mask leaves fewer windows than processes, as any step of a run may."""
    assert_equal(alone(name), torch.load(two / "shared.pt", weights_only=True)[name])


def test_one_process_is_asked_to_stop_and_both_do_after_the_same_step(two: Path):
    for rank in range(2):
        told = (two / f"told-{rank}").read_text()
        assert told.endswith("state.pt holds step 2 of 4: go on with `resume`")
    (state,) = (two / "run").glob("*/state.pt")
    assert torch.load(state, weights_only=True)["step"] == 2


def test_a_run_goes_on_alone_where_two_left_it(two: Path, tmp_path: Path):
    files = [
        run(spread.toy(1), RunPaths(data=two / "data", out=out)) for out in (tmp_path, two / "run")
    ]
    one, other = map(load_file, files)
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-2, atol=2e-3, msg=name)
    assert not list(two.rglob("*.part*"))


def test_processes_wait_for_hours_but_only_where_they_wait(monkeypatch: pytest.MonkeyPatch):
    """While one fills latents the others wait; a step that hangs must end as soon as ever."""
    made: list[timedelta | None] = []
    waited: list[object] = []

    def new_group(*, timeout: timedelta | None = None) -> str:
        made.append(timeout)
        return "patient"

    def begin(_backend: str, *, timeout: timedelta | None = None) -> None:
        made.append(timeout)

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "init_process_group", begin)
    monkeypatch.setattr(torch.distributed, "new_group", new_group)
    monkeypatch.setattr(torch.distributed, "barrier", waited.append)
    monkeypatch.setattr("skipsr.train.parallel.init_device_mesh", lambda *_, **__: object())
    Parallel.start("cpu", 1).wait()
    assert made == [None, timedelta(hours=24)]
    assert waited == ["patient"]


def test_processes_that_cannot_be_divided(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(SettingsError, match="3 processes cannot form groups of 2"):
        Parallel.start("cpu", 2)
    assert list(Parallel(torch.device("cpu")).own(3)) == [0, 1, 2]
