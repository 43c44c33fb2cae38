"""The real command: bad input gives one sentence and leaves nothing, good input a report."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from command import PLAIN, Forks, Result, plainly
from made_models import make_frames
from made_videos import make_video
from PIL import Image

Command = Callable[..., Result]
REPORT = [
    *("input", "output"),
    "model", "frames", "width", "height", "asked", "computed", "spent", "stages",
    "seconds", "peak_memory_gib", "device", "dtype", "scale", "shots",
]  # fmt: skip
STAGES = ["read", "predict", "encode", "denoise", "decode", "write", "total"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, small_video: Path) -> Path:
    """A folder with the good and the bad."""
    folder = tmp_path_factory.mktemp("input")
    (folder / "no images").mkdir()
    (folder / "no images" / "readme.txt").write_text("nothing to see")
    (folder / "no weights").mkdir()
    (folder / "empty.mp4").touch()
    (folder / "empty.gguf").touch()
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile good.mp4\n")
    (folder / "text.mp4").write_text("this is no video\n" * 50)
    Image.fromarray(make_frames(1, 20, 27)[0]).save(folder / "picture.png")
    (folder / "frames").mkdir()
    for i, frame in enumerate(make_frames(3, 20, 28)):
        Image.fromarray(frame).save(folder / "frames" / f"{i}.png")
    (folder / "good.mp4").write_bytes(small_video.read_bytes())
    whole = make_video(folder / "whole.mp4", list(make_frames(40, 48, 64))).read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    make_video(
        folder / "1x1.mkv",
        [np.zeros((1, 1, 3), np.uint8)] * 3,
        codec="ffv1",
        pix_fmt="bgr0",
        options={"level": "3"},
    )
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 9600), np.float32), "fltp", "mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (folder / "taken.mp4").write_bytes(b"precious")
    (folder / "plain").write_bytes(b"precious")
    first, *others = (Image.fromarray(frame) for frame in make_frames(3, 20, 28))
    first.save(folder / "several.webp", save_all=True, append_images=others)
    (folder / "shots.txt").write_text("0\n250\n")
    return folder


BAD = {
    "missing file": ["upscale", "nowhere.mp4", "{out}.mp4"],
    "missing image": ["upscale", "nowhere.png", "{out}.png"],
    "folder without images": ["upscale", "no images", "{out}"],
    "zero bytes": ["upscale", "empty.mp4", "{out}.mp4"],
    "text as mp4": ["upscale", "text.mp4", "{out}.mp4"],
    "sound only": ["upscale", "sound.mp4", "{out}.mp4"],
    "truncated mp4": ["upscale", "truncated.mp4", "{out}.mp4"],
    "1x1": ["upscale", "1x1.mkv", "{out}.mp4"],
    "unknown model": ["upscale", "good.mp4", "{out}.mp4", "--model", "seedvr9:xl"],
    "a playlist": ["upscale", "list.mp4", "{out}.mp4"],
    "seed of more than 64 bits": [
        "upscale", "good.mp4", "{out}.mp4", "--seed", "18446744073709551616",
    ],
    "scale 0": ["upscale", "good.mp4", "{out}.mp4", "--scale", "0"],
    "scale and height": ["upscale", "good.mp4", "{out}.mp4", "--scale", "2", "--height", "96"],
    "huge result": ["upscale", "good.mp4", "{out}.mp4", "--height", "16384"],
    "overlap too large": ["upscale", "good.mp4", "{out}.mp4", "--window", "5", "--overlap", "4"],
    "list of shots that is not there": ["upscale", "good.mp4", "{out}.mp4", "--shots", "of.txt"],
    "list of shots of another video": ["upscale", "good.mp4", "{out}.mp4", "--shots", "shots.txt"],
    "list of shots that is a video": ["mask", "good.mp4", "{out}.mp4", "--shots", "whole.mp4"],
    "list of shots that exists": ["shots", "good.mp4", "--out", "shots.txt"],
    "shots of nothing": ["shots", "nowhere.mp4", "--out", "{out}.txt"],
    "shots of a text": ["shots", "text.mp4"],
    "no output folder": ["upscale", "good.mp4", "nofolder/{out}.mp4"],
    "output exists": ["upscale", "good.mp4", "taken.mp4"],
    "output is the input": ["upscale", "good.mp4", "good.mp4", "--overwrite"],
    "output of a name that is too long": ["upscale", "good.mp4", "{out}" + "x" * 240 + ".mp4"],
    "output is the root": ["upscale", "good.mp4", "/", "--overwrite"],
    "a device": ["upscale", "/dev/null", "{out}.mp4"],
    "video to image": ["upscale", "good.mp4", "{out}.png"],
    "unknown suffix": ["upscale", "good.mp4", "{out}.xyz"],
    "output is a dash": ["upscale", "good.mp4", "-"],
    "output is a suffix": ["upscale", "good.mp4", ".mp4"],
    "output is a file without a suffix": ["upscale", "good.mp4", "plain", "--overwrite"],
    "output is a folder with files": ["upscale", "good.mp4", "frames"],
    "output is a device": ["upscale", "good.mp4", "/dev/null", "--overwrite"],
    "a codec for images": ["upscale", "good.mp4", "{out}", "--codec", "av1"],
    "several images as a video": ["upscale", "several.webp", "{out}.mp4"],
    "codec that does not fit": ["upscale", "good.mp4", "{out}.webm"],
    "empty weights folder": [
        "upscale", "good.mp4", "{out}.mp4", "--model", "seedvr2:3b", "--weights", "no weights",
    ],
    "weights needed": ["upscale", "good.mp4", "{out}.mp4", "--model", "seedvr2:7b"],
    "weights are a video": ["upscale", "good.mp4", "{out}.mp4", "--weights", "whole.mp4"],
    "weights of nothing known": ["upscale", "good.mp4", "{out}.mp4", "--weights", "no weights"],
    "budget above 1": ["upscale", "good.mp4", "{out}.mp4", "--budget", "1.5"],
    "budget and threshold": [
        "upscale", "good.mp4", "{out}.mp4", "--budget", "0.5", "--threshold", "0.5",
    ],
    "dense with a budget": ["mask", "good.mp4", "{out}.mp4", "--budget", "0.5", "--dense"],
    "unknown device": ["upscale", "good.mp4", "{out}.mp4", "--device", "warp"],
    "mask of a missing file": ["mask", "nowhere.mp4", "{out}.mp4", "--oracle"],
    "oracle at another size": ["mask", "good.mp4", "{out}.mp4", "--oracle", "--scale", "2"],
    "segments of a mask": ["mask", "good.mp4", "{out}.mp4", "--oracle", "--segment", "5"],
    "segments of no length": ["upscale", "good.mp4", "{out}.mp4", "--segment", "-1"],
    "mask of a text": ["mask", "text.mp4", "{out}.mp4", "--oracle"],
    "identify a video": ["models", "identify", "whole.mp4"],
    "identify nothing": ["models", "identify", "nowhere.safetensors"],
    "identify an empty gguf": ["models", "identify", "empty.gguf"],
    "fetch an unknown model": ["models", "fetch", "seedvr2:9b", "--to", "{out}"],
    "fetch what nobody published": ["models", "fetch", "seedvr2:nano", "--to", "{out}"],
    "unknown recipe": ["train", "nonsense", "--data", "frames", "--out", "{out}"],
    "nothing to train on": ["train", "nano-predictor", "--data", "no images", "--out", "{out}"],
    "nothing to resume": [
        "train", "nano-predictor", "--data", "frames", "--out", "{out}", "--resume",
    ],
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_input_gives_one_sentence(skipsr: Forks, files: Path, what: str, tiny_file: Path):
    arguments = [argument.format(out=f"out {what}") for argument in BAD[what]]
    if arguments[0] in ("upscale", "mask") and not {"--model", "--weights"} & set(arguments):
        arguments += ["--model", "seedvr2:tiny", "--weights", str(tiny_file)]
    before = found(files)
    result = skipsr(*arguments, cwd=files)
    assert result.code in (1, 2)
    assert len(result.errors) == 1, result.err
    assert result.errors[0].startswith("skipsr: error: ")
    assert "Traceback" not in result.err
    assert len(result.errors[0]) > len("skipsr: error: ") + 15
    assert result.out == ""
    assert found(files) == before, "files appeared, or changed"


def found(folder: Path) -> dict[Path, int]:
    """Files and their sizes; a training run may keep the data it decoded."""
    files = (p for p in folder.rglob("*") if p.is_file() and "cache" not in p.parts)
    return {p: p.stat().st_size for p in files}


def test_from_nothing(files: Path):
    """The command as users start it: the same sentence, the same code, no output."""
    result = plainly("upscale", "nowhere.mp4", "out.mp4", cwd=files)
    assert (result.code, result.out) == (1, "")
    assert result.err == "skipsr: error: nowhere.mp4 does not exist\n"


@pytest.mark.parametrize(
    "arguments", [[], ["upscale"], ["upscale", "a", "b", "--bogus"], ["nonsense"], ["train"]]
)
def test_wrong_usage(skipsr: Forks, arguments: list[str], tmp_path: Path):
    result = skipsr(*arguments, cwd=tmp_path)
    assert result.code == 2
    assert result.err
    assert "Traceback" not in result.err + result.out


@pytest.fixture
def long_job(tiny_file: Path, tmp_path: Path) -> list[object]:
    source = make_video(tmp_path / "long.mp4", list(make_frames(60, 48, 64)))
    return [
        "upscale", source, tmp_path / "out.mp4", "--scale", 4, "--window", 5, "--dense",
        "--model", "seedvr2:tiny", "--weights", tiny_file, "--steps", 50,
    ]  # fmt: skip


def until_it_writes(folder: Path, runs: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not list(folder.glob(".*part*")):
        assert runs()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_interrupted(result: Result, folder: Path) -> None:
    assert result.code == 130
    assert result.errors == ["skipsr: error: interrupted; no output was written"]
    assert result.out == ""
    assert [p.name for p in folder.iterdir()] == ["long.mp4"]


def test_ctrl_c_leaves_nothing(long_job: list[object], tmp_path: Path):
    """The command as users start it."""
    process = subprocess.Popen(
        [*PLAIN, *map(str, long_job)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a child of a background job ignores Ctrl-C, on purpose
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        until_it_writes(tmp_path, lambda: process.poll() is None)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert_interrupted(Result(process.returncode, out, err), tmp_path)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_leaves_nothing(
    skipsr: Forks, long_job: list[object], tmp_path: Path, stop: signal.Signals
):
    process = skipsr.start(*long_job, cwd=tmp_path)
    try:
        until_it_writes(tmp_path, lambda: Path(f"/proc/{process}").exists())
    finally:
        os.kill(process, stop)
        result = skipsr.result()
    assert_interrupted(result, tmp_path)


def test_a_late_fault_keeps_what_is_finished(skipsr: Forks, tiny_file: Path, tmp_path: Path):
    """The last image's header is good and its pixels are not."""
    (tmp_path / "in").mkdir()
    for i, frame in enumerate(make_frames(7, 24, 32)):
        Image.fromarray(frame).save(tmp_path / "in" / f"{i}.png")
    last = tmp_path / "in" / "6.png"
    last.write_bytes(last.read_bytes()[:-400])
    result = skipsr(
        "upscale", tmp_path / "in", tmp_path / "out.mp4", "--model", "seedvr2:tiny", "--dense",
        "--weights", tiny_file, "--scale", 2, "--window", 3, "--overlap", 0,
        cwd=tmp_path,
    )  # fmt: skip
    assert result.code == 1
    (error,) = result.errors
    assert "6.png cannot be read as an image" in error
    kept = tmp_path / "out.partial.mp4"
    assert error.endswith(f"; the 3 frames finished before that are in {kept}")
    assert {path.name for path in tmp_path.iterdir()} == {"in", kept.name}
    with av.open(str(kept)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 3


def upscale(
    skipsr: Command, files: Path, source: str, target: Path, tiny_file: Path, *more: object
) -> Result:
    result = skipsr(
        "upscale", source, target, "--model", "seedvr2:tiny", "--weights", tiny_file,
        "--dtype", "float32", "--device", "cpu", *more, cwd=files,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert result.errors == []
    assert not list(target.parent.glob(".*part*"))
    return result


def test_a_video(files: Path, tiny_file: Path, tmp_path: Path):
    result = upscale(
        plainly, files, "good.mp4", tmp_path / "out.mp4", tiny_file, "--scale", 2, "--window", 5
    )
    report = result.report
    assert list(report) == REPORT
    assert list(report["seconds"]) == STAGES
    assert all(value >= 0 for value in report["seconds"].values())
    assert (report["model"], report["scale"], report["frames"]) == ("seedvr2:tiny", None, 6)
    assert (report["width"], report["height"]) == (64, 48)
    assert (report["device"], report["dtype"]) == ("cpu", "float32")
    assert (report["input"], report["output"]) == ("good.mp4", str(tmp_path / "out.mp4"))
    assert 0 <= report["computed"] <= 1
    assert report["peak_memory_gib"] > 0
    with av.open(str(tmp_path / "out.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        assert len(video.streams.audio) == 1
    assert len(frames) == 6
    assert frames[0].shape == (48, 64, 3)
    small = make_frames(6, 24, 32)
    shrunk = np.stack(frames).reshape(6, 24, 2, 32, 2, 3).mean((2, 4))
    # colours are matched to the input, so even random weights give its colours
    assert abs(shrunk.mean((1, 2)) - small.mean((1, 2))).max() < 25


def test_an_image(skipsr: Forks, files: Path, tiny_file: Path, tmp_path: Path):
    result = upscale(
        skipsr, files, "picture.png", tmp_path / "out.png", tiny_file, "--height", 45, "--dense"
    )
    assert result.report["computed"] == 1
    assert result.report["frames"] == 1
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (round(27 * 45 / 20), 45)


def test_the_weights_say_which_model(skipsr: Forks, files: Path, tiny_file: Path, tmp_path: Path):
    for verb in ("upscale", "mask"):
        result = skipsr(
            verb, "picture.png", tmp_path / f"{verb}.png", "--weights", tiny_file, "--budget", 0.5,
            cwd=files,
        )  # fmt: skip
        assert result.code == 0, result.err
        assert result.report["model"] == "seedvr2:tiny"
    assert result.report["skipped"] == 0.5429  # 19 of 35 tokens: no more than half is spent


def test_a_folder_and_that_a_seed_repeats(
    skipsr: Forks, files: Path, tiny_file: Path, tmp_path: Path
):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        upscale(
            skipsr,
            files,
            "frames",
            tmp_path / name,
            tiny_file,
            "--scale",
            2,
            "--seed",
            seed,
            "--dense",
        )
    contents = {
        name: {p.name: np.asarray(Image.open(p)) for p in sorted((tmp_path / name).iterdir())}
        for name in "abc"
    }
    assert list(contents["a"]) == ["0.png", "1.png", "2.png"]
    assert contents["a"]["0.png"].shape == (40, 56, 3)
    assert all(np.array_equal(contents["a"][n], contents["b"][n]) for n in contents["a"])
    assert any(not np.array_equal(contents["a"][n], contents["c"][n]) for n in contents["a"])


def test_a_folder_into_the_one_we_are_in(
    skipsr: Forks, files: Path, tiny_file: Path, tmp_path: Path
):
    result = skipsr(
        "upscale", files / "frames", ".", "--model", "seedvr2:tiny", "--weights", tiny_file,
        "--scale", 1, cwd=tmp_path,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png", "2.png"]
    assert list(tmp_path.parent.glob(f"*{tmp_path.name}?*")) == []


def test_overwriting(skipsr: Forks, files: Path, tiny_file: Path, tmp_path: Path):
    target = tmp_path / "out.png"
    target.write_bytes(b"old")
    upscale(skipsr, files, "picture.png", target, tiny_file, "--scale", 1, "--overwrite")
    with Image.open(target) as image:
        assert image.size == (27, 20)


def test_masks(skipsr: Forks, files: Path, tiny_file: Path, tmp_path: Path):
    result = skipsr(
        "mask", "good.mp4", tmp_path / "mask.mp4", "--scale", 2, "--model", "seedvr2:tiny",
        "--weights", tiny_file, "--threshold", 1, cwd=files,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert result.report == {
        "model": "seedvr2:tiny", "frames": 6, "width": 64, "height": 48, "skipped": 1.0,
    }  # fmt: skip
    with av.open(str(tmp_path / "mask.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 6


def test_the_oracle_mask_tints_what_is_flat(skipsr: Forks, tmp_path: Path):
    truth = np.full((32, 48, 3), 90, np.uint8)
    truth[:, 32:] = np.random.default_rng(0).integers(0, 256, (32, 16, 3))
    Image.fromarray(truth).save(tmp_path / "truth.png")
    result = skipsr("mask", "truth.png", "mask.png", "--oracle", cwd=tmp_path)
    assert result.code == 0, result.err
    assert result.report["model"] == "oracle"
    assert (result.report["width"], result.report["height"]) == (48, 32)
    drawn = np.asarray(Image.open(tmp_path / "mask.png")).astype(int)
    assert np.array_equal(drawn[:, 32:], truth[:, 32:])
    blue = drawn[4:28, 4:12] - 90
    assert (blue[..., 2] > 30).all()
    assert (blue[..., 0] < 0).all()
    assert result.report["skipped"] == pytest.approx(
        np.mean((drawn[::16, ::16] != truth[::16, ::16]).any(2)), abs=1e-4
    )


@pytest.mark.parametrize(
    "told",
    [["--model", "seedvr2:nano"], ["--quality", 0.1], ["--detail", 1], ["--weights", "nowhere"]],
)
def test_the_oracle_is_told_of_no_model(
    skipsr: Forks, files: Path, tmp_path: Path, told: list[object]
):
    result = skipsr("mask", "picture.png", tmp_path / "mask.png", "--oracle", *told, cwd=files)
    assert result.code == 1
    (error,) = result.errors
    assert error.startswith("skipsr: error: --oracle runs no model: leave out --model")
    assert not list(tmp_path.iterdir())


def test_models(skipsr: Forks, files: Path, tiny_file: Path):
    listed = skipsr("models", "list", cwd=files)
    assert listed.code == 0
    rows = [line.split(maxsplit=1) for line in listed.out.splitlines()]
    assert rows[0] == ["seedvr2:nano", "bundled"]
    assert rows[1] == ["skipvsr:nano", "bundled; runs when no model is named"]
    large = {f"seedvr2:{size}{steps}" for size in ("3b", "7b") for steps in ("", "-50")}
    assert {name for name, _ in rows[2:]} == {"basicvsr:x4", "skipvsr:small", *large}
    identified = skipsr("models", "identify", tiny_file, cwd=files)
    assert identified.code == 0
    what = "whole model with mask predictor for any tau and negative conditioning"
    assert identified.out == f"{tiny_file}: seedvr2:tiny {what}\n"
