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
DIVIDED = ["onestep", "adversarial", "predictor", "autoencoder"]  # a clip for each process
SHARED = ["velocity", "distill", "adversarial"]  # every clip on both


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


Steps = dict[str, dict[str, dict[str, torch.Tensor]]]  # objective, phase, parameter


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Steps:
    out = tmp_path_factory.mktemp("alone") / "steps.pt"
    start("step", ",".join({*DIVIDED, *SHARED}), 1, out)
    return torch.load(out, weights_only=True)


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory) -> Steps:
    out = tmp_path_factory.mktemp("divided") / "steps.pt"
    start("step", ",".join(DIVIDED), 1, out, processes=2)
    return torch.load(out, weights_only=True)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Steps:
    out = tmp_path_factory.mktemp("shared") / "steps.pt"
    start("step", ",".join(SHARED), 2, out, processes=2)
    return torch.load(out, weights_only=True)


def assert_equal(one: dict, two: dict) -> None:
    assert one.keys() == two.keys()
    for phase, found in one.items():
        assert found.keys() == two[phase].keys()
        assert any(x.abs().max() > 1e-4 for x in found.values())
        for name, value in found.items():
            torch.testing.assert_close(two[phase][name], value, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("name", DIVIDED)
def test_two_processes_with_a_clip_each_equal_one_with_both(
    name: str, alone: Steps, divided: Steps
):
    assert_equal(alone[name], divided[name])


@pytest.mark.parametrize("name", SHARED)
def test_two_processes_that_share_tokens_equal_one(name: str, alone: Steps, shared: Steps):
    assert_equal(alone[name], shared[name])


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
