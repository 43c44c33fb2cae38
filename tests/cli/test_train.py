"""`skipsr train`: plans without data, and one sentence for what cannot be trained."""

import dataclasses
import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command import Forks
from made_models import make_frames
from PIL import Image

from skipsr.cli import main
from skipsr.train import run
from skipsr.train.recipes import RECIPES, Recipe


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """What the command does at the signals is its own affair."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    Image.fromarray(make_frames(1, 200, 200)[0]).save(tmp_path / "data" / "one.png")
    return tmp_path


def test_a_plan_needs_neither_data_nor_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert main.run(["train", "3b-finetune", "--plan", "--devices", "40"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    lines = shown.out.splitlines()
    assert lines[0] == "finetune: 40 devices, 50,625 tokens a clip"  # 25 x 45 x 45
    assert "1 passes with gradients and 0 without" in lines[-1]
    # a quarter of a 3B forward pass over the clip (1, and 3 for recomputed gradients)
    (tflop,) = re.findall(r"transformer ([\d,]+) ", lines[-1])
    assert float(tflop.replace(",", "")) == pytest.approx(291, abs=3)
    assert "encoder 0" not in lines[-1]
    assert not list(tmp_path.iterdir())


def test_a_plan_has_a_paragraph_for_each_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert main.run(["train", "nano-distill", "--plan", "--latents", "x"]) == 0
    told = capsys.readouterr().out
    heads = [line for line in told.splitlines() if not line.startswith(" ")]
    assert [head.split(":")[0] for head in heads] == [
        stage.name for stage in RECIPES["nano-distill"].stages
    ]
    assert told.count("encoder 0\n") == 3
    assert not list(tmp_path.iterdir())


def endless() -> Recipe:
    """A toy that ends when it is told to, and saves nothing before."""
    stage = RECIPES["nano-predictor"].stages[0].tiny()
    settings = dataclasses.replace(stage.settings, crop=32, steps=10**6, checkpoint_every=10**6)
    return Recipe((dataclasses.replace(stage, settings=settings),))


def last_step(log: Path) -> int:
    whole = log.read_text().rpartition("\n")[0] if log.exists() else ""  # one may be in the making
    return json.loads(whole.splitlines()[-1])["step"] if whole else 0


def stop_after(log: Path, step: int) -> threading.Thread:
    """Send TERM to this process when the log is past a step."""

    def body() -> None:
        deadline = time.monotonic() + 60
        while last_step(log) <= step and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=body)
    thread.start()
    return thread


def test_a_farms_stop_request_saves_the_state_and_tells_how_to_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(run, "RECIPES", {"endless": endless()})
    monkeypatch.chdir(folder)
    step, log, state = 0, Path("out/predictor/log.jsonl"), "out/predictor/state.pt"
    for resume in ([], ["--resume"]):
        thread = stop_after(log, step)
        arguments = ["train", "endless", "--data", "data", "--out", "out", *resume]
        assert main.run([*arguments, "--device", "cpu"]) == 130
        thread.join()
        assert step < last_step(log)
        step = last_step(log)
        told = f"interrupted; {state} holds step {step} of 1000000: go on with --resume"
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.splitlines()[-1] == f"skipsr: error: {told}"
        assert torch.load(state, weights_only=True)["step"] == step


BAD = {
    "no data": (["nano-teacher"], "training needs --data and --out"),
    "unknown recipe": (["nano-magic", "--plan"], "unknown recipe 'nano-magic'; there are nano-"),
    "latents for pixels": (
        ["nano-onestep", "--data", "data", "--out", "out", "--latents", "kept"],
        "stage onestep trains on pixels: leave out --latents",
    ),
    "nothing to go on from": (
        ["nano-teacher", "--data", "data", "--out", "out"],
        "nano-teacher goes on from nano-autoencoder: give these weights as --start",
    ),
    "no devices": (["3b-finetune", "--plan", "--devices", "0"], "--devices 0 is less than one"),
    "odd devices": (
        ["3b-finetune", "--plan", "--devices", "7"],
        "finetune: 7 devices cannot form groups of 4 that share a batch of 10; give --devices 40",
    ),
    "devices of a run": (
        ["nano-predictor", "--devices", "4", "--data", "data", "--out", "out"],
        "--devices 4 is for --plan: to train on as many, start it with torchrun --nproc-per-node 4",
    ),
    "too few processes": (
        ["3b-finetune", "--data", "data", "--out", "out", "--start", "3b"],
        "1 processes cannot form groups of 4; start torchrun with a --nproc-per-node",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_trained_is_told_in_one_sentence(skipsr: Forks, folder: Path, what: str):
    arguments, sentence = BAD[what]
    result = skipsr("train", *arguments, cwd=folder)
    assert result.code == 1
    assert result.out == ""
    assert len(result.errors) == 1, result.err
    assert result.errors[0].startswith("skipsr: error: ")
    assert sentence in result.errors[0]
    written = {p.name for p in folder.rglob("*") if p.is_file() and "cache" not in p.parts}
    assert written == {"one.png"}


def test_devices_that_are_no_number(skipsr: Forks, tmp_path: Path):
    result = skipsr("train", "3b-finetune", "--plan", "--devices", "many", cwd=tmp_path)
    assert result.code == 2
    assert "Traceback" not in result.err
