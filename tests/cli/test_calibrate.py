"""`skipsr calibrate`: a trained model learns its thresholds, and one sentence where it cannot."""

import json
from pathlib import Path

import pytest
import torch
from command import Forks
from made_models import make_frames, perturb
from made_videos import make_video
from PIL import Image
from safetensors.torch import load_file

from skipsr.backbones.basicvsr.config import PRESETS
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.cli import main
from skipsr.train import run
from skipsr.train.calibrate import CalibrationClips
from skipsr.train.recipes import RECIPES, Recipe
from skipsr.train.run import export


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of three kinds, and weights with and without routers."""
    folder = tmp_path_factory.mktemp("calibrate")
    (folder / "clips" / "still").mkdir(parents=True)
    make_video(folder / "clips" / "a.mp4", list(make_frames(5, 48, 66)))
    make_video(folder / "clips" / "b.mp4", list(make_frames(3, 40, 64, seed=1)))
    for i, frame in enumerate(make_frames(3, 36, 44)):
        Image.fromarray(frame).save(folder / "clips" / "still" / f"{i}.png")
    for name, size in (("small", 20), ("short", 48)):
        (folder / name).mkdir()
        make_video(folder / name / "x.mp4", list(make_frames(1, size, size)))
    (folder / "images").mkdir()
    Image.fromarray(make_frames(1, 48, 48)[0]).save(folder / "images" / "one.png")
    torch.manual_seed(0)
    model = BasicVSR(PRESETS["tiny"])
    perturb(model)
    perturb(model.routers(), seed=1, spread=2.0)
    export(model, folder / "tiny.safetensors", {})
    model.router_backward = model.router_forward = None
    del model.calibration
    export(model, folder / "dense.safetensors", {})
    return folder


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*")}


@pytest.mark.slow
def test_weights_learn_their_thresholds(skipsr: Forks, folder: Path, tmp_path: Path):
    out = tmp_path / "done.safetensors"
    before = files(folder)
    result = skipsr(
        "calibrate", "basicvsr:tiny", "tiny.safetensors", "--data", "clips", "--out", out,
        "--frames", 3, "--device", "cpu", cwd=folder,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert result.errors == []
    head, *rows, last = result.out.splitlines()
    assert head.split() == ["budget", "threshold"]
    assert Path(last) == out
    given, found = load_file(folder / "tiny.safetensors"), load_file(out)
    assert not given["calibration"].any()
    table = torch.tensor([[float(x) for x in row.split()] for row in rows])
    torch.testing.assert_close(table, found["calibration"], atol=5e-4, rtol=0)
    assert (table[:, 0].diff() >= 0).all()
    assert (table[:, 1].diff() <= 0).all()
    assert len(set(table[:, 1].tolist())) > 8
    assert given.keys() == found.keys()
    assert all(torch.equal(given[k], found[k]) for k in given if k != "calibration")
    assert files(folder) == before
    assert files(tmp_path) == {"done.safetensors"}

    clip = folder / "clips" / "a.mp4"
    upscaled = skipsr(
        "upscale", clip, tmp_path / "a.mkv", "--model", "basicvsr:tiny", "--weights", out,
        "--skip", "blocks", "--budget", "0.7", "--device", "cpu", cwd=folder,
    )  # fmt: skip
    assert upscaled.code == 0, upscaled.err
    assert 0 < upscaled.report["computed"] < 1


BAD = {
    "unknown model": (["basicvsr:huge", "tiny.safetensors"], "clips", "unknown model"),
    "a diffusion model": (
        ["nano", "tiny.safetensors"],
        "clips",
        "nano needs no thresholds for its budgets",
    ),
    "no weights": (["basicvsr:tiny", "nowhere.pth"], "clips", "nowhere.pth: no such file"),
    "no routers": (
        ["basicvsr:tiny", "dense.safetensors"],
        "clips",
        "dense.safetensors: no routers there; train them first, with a routing recipe",
    ),
    "other weights": (["basicvsr:x4", "tiny.safetensors"], "clips", "does not fit basicvsr:x4"),
    "no data": (["basicvsr:tiny", "tiny.safetensors"], "nowhere", "nowhere is not a folder"),
    "no clips": (
        ["basicvsr:tiny", "tiny.safetensors"],
        "images",
        "images holds no videos or folders of frames to calibrate on",
    ),
    "small clips": (["basicvsr:tiny", "tiny.safetensors"], "small", "20x20 is too small"),
    "short clips": (["basicvsr:tiny", "tiny.safetensors"], "short", "a single frame is no clip"),
    "too few clips": (
        ["basicvsr:tiny", "tiny.safetensors", "--clips", "0"],
        "clips",
        "--clips 0 is less than one",
    ),
    "too few frames": (
        ["basicvsr:tiny", "tiny.safetensors", "--frames", "1"],
        "clips",
        "--frames 1 is less than two",
    ),
    "unknown device": (
        ["basicvsr:tiny", "tiny.safetensors", "--device", "warp"],
        "clips",
        "--device warp is not usable",
    ),
    "taken": (
        ["basicvsr:tiny", "tiny.safetensors", "--out", "dense.safetensors"],
        "clips",
        "--out dense.safetensors is there already",
    ),
    "another suffix": (
        ["basicvsr:tiny", "tiny.safetensors", "--out", "x.pth"],
        "clips",
        "--out x.pth is no .safetensors file",
    ),
    "no folder": (
        ["basicvsr:tiny", "tiny.safetensors", "--out", "no/x.safetensors"],
        "clips",
        "there is no folder no",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_calibrated_is_told_in_one_sentence(skipsr: Forks, folder: Path, what: str):
    arguments, data, sentence = BAD[what]
    if "--out" not in arguments:
        arguments = [*arguments, "--out", "out.safetensors"]
    before = files(folder)
    result = skipsr("calibrate", *arguments, "--data", data, cwd=folder)
    assert result.code == 1
    assert result.out == ""
    assert len(result.errors) == 1, result.err
    assert result.errors[0].startswith("skipsr: error: ")
    assert sentence in result.errors[0]
    assert files(folder) == before


def test_footage_is_as_training_shrinks_it(folder: Path):
    footage = CalibrationClips(data=folder / "clips", frames=4)
    shapes = [tuple(clip.shape) for clip in footage.read(8)]
    assert shapes == [(4, 3, 12, 16), (3, 3, 10, 16), (3, 3, 9, 11)]
    (_, _, pictures) = footage.read(8)
    levels = pictures * 255
    assert torch.allclose(levels, levels.round(), atol=1e-4)
    frames = torch.from_numpy(make_frames(3, 36, 44)).permute(0, 3, 1, 2).float() / 255
    small = torch.nn.functional.interpolate(
        frames, (9, 11), mode="bicubic", antialias=True, align_corners=False
    )
    torch.testing.assert_close(pictures, small.clamp(0, 1), atol=0.5 / 255 + 1e-5, rtol=0)


@pytest.mark.parametrize(
    ("clips", "names"), [(1, ["a"]), (2, ["a", "b"]), (9, ["a", "b", "still"])]
)
def test_of_many_clips_some_from_the_whole_list(folder: Path, clips: int, names: list[str]):
    paths = CalibrationClips(data=folder / "clips", clips=clips).paths()
    assert [path.stem for path in paths] == names


def test_a_toy_is_trained_and_calibrated_from_the_command_line(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """From nothing to thresholds: each recipe starts from the one before."""
    toys = {
        name: Recipe(tuple(stage.tiny() for stage in recipe.stages))
        for name, recipe in RECIPES.items()
        if "nano" in name
    }
    monkeypatch.setattr(run, "RECIPES", toys)
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    make_video(data / "a.mp4", list(make_frames(6, 64, 80)))
    start: list[str] = []
    for part in ("flow", "backbone", "routing"):
        arguments = ["train", f"skipvsr-nano-{part}", "--data", "data", "--out", part, *start]
        assert main.run([*arguments, "--device", "cpu"]) == 0, capsys.readouterr().err
        shown = capsys.readouterr()
        assert shown.out.strip() == f"{part}/model.safetensors"
        assert [line.split()[1] for line in shown.err.splitlines()] == ["1/2", "2/2"]
        start = ["--start", f"{part}/model.safetensors"]
        told = [json.loads(x) for x in Path(part, part, "log.jsonl").read_text().splitlines()]
        assert ("executed" in told[0]) == (part == "routing")
    done = ["routing/model.safetensors", "--data", "data", "--out", "done.safetensors"]
    assert main.run(["calibrate", "basicvsr:tiny", *done, "--device", "cpu"]) == 0
    assert load_file("done.safetensors")["calibration"].any()
