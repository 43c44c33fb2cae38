"""What somebody meets who knows no flag yet: help, wrong values, verbs alone, early refusals."""

import re
import subprocess
from pathlib import Path

import pytest
from command import PLAIN, loaded_after
from made_videos import make_video, ramp

import skipsr
from skipsr.cli.main import parse, run
from skipsr.cli.verbs import Upscale


def test_the_version_is_told_with_what_it_runs_on(capsys: pytest.CaptureFixture[str]):
    assert run(["--version"]) == 0
    told = capsys.readouterr().out
    assert re.fullmatch(
        rf"skipsr {re.escape(skipsr.__version__)}, torch \S+, Python 3\.\S+\n", told
    )


def test_models_alone_lists_them_and_says_which_runs_unasked(capsys: pytest.CaptureFixture[str]):
    assert run(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (usual,) = [line for line in lines if line.endswith("runs when no model is named")]
    assert usual.startswith("skipvsr:nano ")


def test_jobs_alone_says_that_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert run(["jobs"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == f"no unfinished jobs in {tmp_path} or below\n"


@pytest.mark.parametrize(
    ("flag", "value", "wanted"),
    [
        ("--speed", "fast", "'fast' is not a number"),
        ("--height", "720p", "'720p' is not a whole number"),
        ("--seed", "1.5", "'1.5' is not a whole number"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_wanted(
    flag: str, value: str, wanted: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        parse(["upscale", "a.mp4", "b.mp4", flag, value])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert f"Error parsing {flag}: {wanted}" in told
    assert "None" not in told


def test_help_speaks_of_no_none(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parse(["upscale", "--help"])
    told = capsys.readouterr().out
    assert "--height INT" in told
    assert "(default: 0)" in told  # of --seed
    assert "None" not in told


def test_factors_may_have_an_x():
    verb = parse(["upscale", "a.mp4", "b.mp4", "--scale", "2x", "--speed=1.5x"])
    assert isinstance(verb, Upscale)
    assert (verb.job.scale, verb.skip.speed) == (2, 1.5)


@pytest.mark.parametrize("verb", ["upscale", "mask", "preview"])
def test_a_target_that_exists_is_refused_before_torch_is_loaded(tmp_path: Path, verb: str):
    video = make_video(tmp_path / "a.mp4", ramp(2))
    taken = tmp_path / "b.mp4"
    taken.write_bytes(b"precious")
    (loaded,) = loaded_after(
        f"from skipsr.cli.main import run; assert run([{verb!r}, {str(video)!r}, {str(taken)!r}])"
    )
    assert "skipsr.cli.verbs" in loaded
    assert "torch" not in loaded
    assert taken.read_bytes() == b"precious"


def test_a_pattern_for_frames_is_answered_with_their_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(["upscale", str(tmp_path / "%04d.png"), "out.mp4"]) == 1
    assert capsys.readouterr().err.endswith(f"give the folder, {tmp_path}\n")


def test_the_public_names_are_listed():
    assert set(skipsr.__all__) <= set(dir(skipsr))


def test_a_command_whose_outputs_are_closed_does_its_job(tmp_path: Path):
    """As a daemon starts it."""
    make_video(tmp_path / "a.mp4", ramp(2, 32, 32))
    command = [*PLAIN, "shots", "a.mp4", "--out", "shots.txt"]
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
    done = subprocess.run(closed, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0
    assert (tmp_path / "shots.txt").read_text().startswith("0 ")


def test_a_folder_alone_lists_its_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["jobs", str(tmp_path)]) == 0
    assert f"no unfinished jobs in {tmp_path} or below" in capsys.readouterr().err
    assert run(["jobs", "clean", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (["models", "fetch", "skipvsr:nano"], "skipvsr:nano is bundled: it runs without being"),
        (["models", "identify", "."], ". is a folder: give one of the files in it"),
    ],
)
def test_what_needs_nothing_is_said(
    told: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert run(told) == 1
    assert message in capsys.readouterr().err
