"""What cannot work is refused before anything runs or is written."""

from pathlib import Path

import pytest

from skipsr.errors import SkipsrError
from skipsr.farm.batch import run_batch
from skipsr.farm.task import ModelSettings
from skipsr.settings import BatchSettings, JobSettings, RuntimeSettings

BATCH: dict[str, tuple[BatchSettings, str]] = {
    "an unknown device": (BatchSettings(devices="warp"), "`devices` warp is not on this machine"),
    "a suffix of nothing": (BatchSettings(suffix="xyz"), "cannot write name.xyz"),
    "a suffix of images": (BatchSettings(suffix=".png"), "`suffix` .png is no container"),
    "a codec that does not fit": (BatchSettings(suffix=".webm"), ".webm cannot hold `codec` h264"),
}
PLACES = {
    "a folder of nothing": ("empty", "out", "empty holds no videos or images"),
    "no such list": ("nowhere.txt", "out", "nowhere.txt does not exist"),
    "no text as list": ("a.bin", "out", "a.bin is no list"),
    "results that would meet": ("twins", "out", "would meet in"),
    "results over inputs": ("twins", "twins", "give another one for the results"),
    "no rights": ("one", "/proc/out", "cannot write to /proc/out"),
    "a file as OUT": ("one", "a.mkv", "a.mkv is to be a folder for results"),
}
MODELS = {
    "weights needed": (ModelSettings(name="seedvr2:7b"), "seedvr2:7b is not bundled"),
    "device and devices": (
        ModelSettings(runtime=RuntimeSettings(device="cpu")),
        "give `device` or `devices`, not both",
    ),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("one/a.mkv", "twins/a.mkv", "twins/a.avi", "a.mkv"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"\x1aE\xdf\xa3\xff")
    Path("a.bin").write_bytes(b"\0")
    Path("empty").mkdir()
    return tmp_path


def refused(folder: Path, source: str, out: str, *settings: object) -> str:
    """The sentence."""
    before = set(folder.rglob("*"))
    model, job, batch = (
        next((s for s in settings if isinstance(s, kind)), kind())
        for kind in (ModelSettings, JobSettings, BatchSettings)
    )
    with pytest.raises(SkipsrError) as caught:
        run_batch(Path(source), Path(out), model, job, batch)
    assert set(folder.rglob("*")) == before
    return str(caught.value)


@pytest.mark.parametrize("what", BATCH)
def test_settings(folder: Path, what: str):
    settings, message = BATCH[what]
    assert message in refused(folder, "one", "out", settings)


@pytest.mark.parametrize("what", PLACES)
def test_places(folder: Path, what: str):
    source, out, message = PLACES[what]
    assert message in refused(folder, source, out)


@pytest.mark.parametrize("what", MODELS)
def test_models(folder: Path, what: str):
    model, message = MODELS[what]
    assert message in refused(folder, "one", "out", model, BatchSettings(devices="cpu:2"))


def test_an_image_has_neither_codec_nor_crf(folder: Path):
    Path("empty/a.png").write_bytes(b"x")
    assert "`crf` is for videos" in refused(folder, "empty", "out", JobSettings(crf=20))
    assert "`codec` is for videos" in refused(folder, "empty", "out", JobSettings(codec="h265"))


def test_a_rate_is_for_folders_as_clips(folder: Path):
    Path("empty/a.png").write_bytes(b"x")
    for source in ("one", "empty"):
        told = refused(folder, source, "out", JobSettings(fps=25))
        assert "`fps` is for folders of frames" in told


def test_a_cluster_places_its_workers_itself(folder: Path):
    pytest.importorskip("ray")
    told = refused(folder, "one", "out", BatchSettings(ray="local", devices="cuda:0"))
    assert told == "`devices` cuda:0: with `ray` give all or cpu:N"


def test_negative_retries():
    with pytest.raises(SkipsrError, match="`retries` -1"):
        BatchSettings(retries=-1)
