"""Ctrl-C and TERM end a run after the step it is in, with nothing lost."""

import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from made_models import make_frames
from PIL import Image
from safetensors.torch import load_file

from skipsr.errors import Interrupted
from skipsr.train import run as runs
from skipsr.train.loop import TrainProgress
from skipsr.train.recipes import RECIPES, Recipe
from skipsr.train.run import RunPaths, run, run_recipe
from skipsr.train.stop import Stop

STOPS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Those of the command line, whatever this process was started with."""
    before = {number: signal.getsignal(number) for number in STOPS}
    for number in STOPS:
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    (tmp_path / "data").mkdir()
    Image.fromarray(make_frames(1, 48, 40)[0]).save(tmp_path / "data" / "one.png")
    return RunPaths(data=tmp_path / "data", out=tmp_path / "out")


def toy() -> Recipe:
    """Four steps, and no state before the end."""
    stage = RECIPES["nano-predictor"].stages[0].tiny()
    settings = dataclasses.replace(stage.settings, crop=32, steps=4, checkpoint_every=100)
    return Recipe((dataclasses.replace(stage, settings=settings),))


def at(step: int, *stops: signal.Signals) -> Callable[[str, TrainProgress], None]:
    """A report in the middle of a step; stops it."""

    def report(_stage: str, progress: TrainProgress) -> None:
        if progress.step == step:
            for number in stops:
                signal.raise_signal(number)

    return report


@pytest.mark.parametrize("stop", STOPS)
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(paths: RunPaths, stop: signal.Signals):
    straight = dataclasses.replace(paths, out=paths.out / "straight")
    run(toy(), straight)
    told = r"interrupted; .*predictor/state.pt holds step 2 of 4: go on with `resume`"
    with pytest.raises(Interrupted, match=told):
        run(toy(), paths, report=at(2, stop))
    assert signal.getsignal(stop) is signal.default_int_handler
    assert not (paths.out / "model.safetensors").exists()
    run(toy(), paths)
    a, b = (load_file(p.out / "model.safetensors") for p in (straight, paths))
    assert all(torch.equal(a[k], b[k]) for k in a)
    a, b = (torch.load(p.out / "predictor" / "state.pt") for p in (straight, paths))
    assert a["step"] == b["step"] == 4
    assert all(torch.equal(a["model"][k], b["model"][k]) for k in a["model"])
    assert all(torch.equal(a["average"][k], b["average"][k]) for k in a["average"])


def test_an_interrupt_of_the_last_step_leaves_the_weights_to_a_resumed_run(paths: RunPaths):
    with pytest.raises(Interrupted, match="holds step 4 of 4"):
        run(toy(), paths, report=at(4, signal.SIGTERM))
    assert run(toy(), paths).exists()


@pytest.mark.parametrize(
    ("begun", "told"), [(False, "no step was saved"), (True, "is kept: go on")]
)
def test_a_second_ctrl_c_interrupts_the_step_and_tells_what_there_is(
    paths: RunPaths, begun: bool, told: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runs, "RECIPES", {"toy": toy()})
    if begun:
        with pytest.raises(Interrupted):
            run_recipe("toy", paths, report=at(1, signal.SIGINT))
    with pytest.raises(Interrupted, match=told):
        run_recipe("toy", paths, resume=begun, report=at(2, signal.SIGINT, signal.SIGINT))


def test_a_launcher_may_send_term_twice():
    with Stop() as stop:
        assert not stop.asked()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked()


def test_a_request_that_nobody_looked_at_is_not_lost():
    def body() -> None:
        with Stop() as stop:
            assert not stop.asked()
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        body()


def test_a_signal_that_is_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert not stop.asked()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_a_thread_cannot_be_asked():
    found: list[bool] = []

    def body() -> None:
        with Stop() as stop:
            found.append(stop.asked())

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert found == [False]
