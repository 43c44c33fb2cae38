"""Two processes compute what one does: data parallel, sharded, and sharing one clip's tokens."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from made_models import make_frames
from PIL import Image
from safetensors.torch import load_file

from skipsr.errors import SettingsError
from skipsr.train.parallel import Parallel

SCRIPT = Path(__file__).parent / "spread.py"
SHARED = ["velocity", "distill", "adversarial"]
PHASES = {"adversarial": ["model", "judge"], "autoencoder": ["autoencoder"]}


def start(*arguments: object, processes: int = 1) -> None:
    launch = [sys.executable]
    if processes > 1:
        launch += [
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(processes),
        ]
    command = [*launch, str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]


def steps(name: str, folder: Path, *, sequence: int) -> tuple[dict, dict]:
    start("step", name, 1, folder / "one.pt")
    start("step", name, sequence, folder / "two.pt", processes=2)
    one, two = (torch.load(folder / f"{n}.pt", weights_only=True) for n in ("one", "two"))
    return one, two


def assert_equal(one: dict, two: dict) -> None:
    assert one.keys() == two.keys()
    for phase, found in one.items():
        assert found.keys() == two[phase].keys()
        assert any(x.abs().max() > 1e-4 for x in found.values())
        for name, value in found.items():
            torch.testing.assert_close(two[phase][name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("name", ["onestep", "adversarial", "predictor"])
def test_two_processes_with_a_clip_each_equal_one_with_both(name: str, tmp_path: Path):
    assert_equal(*steps(name, tmp_path, sequence=1))


@pytest.mark.parametrize("name", SHARED)
def test_two_processes_that_share_tokens_equal_one(name: str, tmp_path: Path):
    assert_equal(*steps(name, tmp_path, sequence=2))


def test_a_run_goes_on_alone_where_two_left_it(tmp_path: Path):
    for i in range(2):
        Image.fromarray(make_frames(1, 90, 72, seed=i)[0]).save(tmp_path / f"{i}.png")
    start("run", "nano-distill", 1, tmp_path, tmp_path / "one", 4)
    start("run", "nano-distill", 1, tmp_path, tmp_path / "two", 2, processes=2)
    start("run", "nano-distill", 1, tmp_path, tmp_path / "two", 4)
    one, two = (load_file(tmp_path / n / "model.safetensors") for n in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-2, atol=2e-3, msg=name)
    assert not list(tmp_path.rglob("*.part*"))


def test_processes_that_cannot_be_divided(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(SettingsError, match="3 processes cannot form groups of 2"):
        Parallel.start("cpu", 2)
    assert list(Parallel(torch.device("cpu")).own(3)) == [0, 1, 2]
