"""Published files from a hub on the loopback: brought whole, gone on with, checked; and its faults,
each one sentence, after which the same call goes on."""

import errno
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from full_disk import no_file_beyond
from loopback_hub import LoopbackHub
from loopback_hub import published as as_published
from made_models import make_frames, write_parts
from PIL import Image

from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.backbones.seedvr2.published import PUBLISHED
from skipsr.backbones.seedvr2.weights import kinds
from skipsr.catalog import fetch_model, list_models
from skipsr.cli.main import run
from skipsr.errors import Interrupted, SettingsError, WeightsError
from skipsr.files import sha256
from skipsr.loading import find_model
from skipsr.weights import fetch as fetching
from skipsr.weights.fetch import FetchProgress, fetch
from skipsr.weights.published import folder_of

constants = pytest.importorskip("huggingface_hub.constants")

CONTENTS = {"net.safetensors": os.urandom(300_000), "text.pt": b"conditioning" * 50}
FILES = as_published(CONTENTS)
BIG, SMALL = FILES


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub(dict(CONTENTS)).running() as running:
        point_at(running.url, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))
        monkeypatch.setenv("SKIPSR_HOME", str(tmp_path / "home"))
        monkeypatch.setattr(fetching, "_WAITS", (0.0, 0.0))
        yield running


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does, for a library that read it when it was imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def partial(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.glob(".*.part")]


def complete(folder: Path) -> bool:
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}
    return found == CONTENTS and not partial(folder)


def test_files_are_brought_and_told_of(hub: LoopbackHub, tmp_path: Path):
    told: list[FetchProgress] = []
    fetch(FILES, tmp_path / "to" / "there", told.append)
    assert complete(tmp_path / "to" / "there")
    total = sum(file.size for file in FILES)
    assert {progress.of for progress in told} == {total}
    assert told[-1].done == total
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert not hub.tokens


def test_a_second_fetch_only_checks(hub: LoopbackHub, tmp_path: Path):
    fetch(FILES, tmp_path / "a")
    hub.requests.clear()
    told: list[FetchProgress] = []
    fetch(FILES, tmp_path / "a", told.append)
    assert hub.requests == []
    assert told[-1].done == told[-1].of


def test_a_cut_connection_is_taken_up_where_it_broke(hub: LoopbackHub, tmp_path: Path):
    hub.faults[BIG.name] = [("cut", 120_000), ("cut", 50_000), ("cut", 0), ("cut", 1000)]
    fetch(FILES, tmp_path / "a")
    assert complete(tmp_path / "a")
    asked = [r.partition("bytes=")[2] for r in hub.requests if r.startswith(f"GET {BIG.name}")]
    assert asked == ["", "120000-", "170000-", "170000-", "171000-"]


def test_a_later_fetch_goes_on_from_the_same_byte(hub: LoopbackHub, tmp_path: Path):
    hub.faults[BIG.name] = [("cut", 100_000), *[("cut", 0)] * 3]
    with pytest.raises(WeightsError, match=r"gave no more of net.*what was fetched is kept"):
        fetch(FILES, tmp_path / "a")
    assert partial(tmp_path / "a") == [100_000]
    assert not (tmp_path / "a" / BIG.name).exists()
    hub.requests.clear()
    fetch(FILES, tmp_path / "a")
    assert complete(tmp_path / "a")
    assert hub.requests[0] == f"GET {BIG.name} bytes=100000-"


def test_a_server_without_ranges_begins_again(hub: LoopbackHub, tmp_path: Path):
    hub.ranges = False
    hub.faults[BIG.name] = [("cut", 100_000)]
    fetch(FILES, tmp_path / "a")
    assert complete(tmp_path / "a")


def test_an_interrupt_keeps_what_is_there(hub: LoopbackHub, tmp_path: Path):
    def stop(progress: FetchProgress) -> None:
        if progress.done >= 100_000:
            raise KeyboardInterrupt

    hub.faults[BIG.name] = [("cut", 100_000)]
    with pytest.raises(Interrupted, match="the same command goes on"):
        fetch(FILES, tmp_path / "a", stop)
    assert partial(tmp_path / "a") == [100_000]
    fetch(FILES, tmp_path / "a")
    assert complete(tmp_path / "a")


def test_foreign_files_stay(hub: LoopbackHub, tmp_path: Path):
    (tmp_path / "other.safetensors").write_bytes(b"mine")
    (tmp_path / BIG.name).write_bytes(b"of the same name")
    with pytest.raises(WeightsError, match=f"{BIG.name} is not the published file of that name"):
        fetch(FILES, tmp_path)
    assert (tmp_path / BIG.name).read_bytes() == b"of the same name"
    (tmp_path / BIG.name).unlink()
    fetch(FILES, tmp_path)
    assert (tmp_path / "other.safetensors").read_bytes() == b"mine"


def test_what_the_cache_holds_is_linked_even_offline(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As `huggingface_hub` itself put it there for some other program."""
    import huggingface_hub

    for file in FILES:
        huggingface_hub.hf_hub_download(
            file.repo, file.name, revision=file.revision, cache_dir=constants.HF_HUB_CACHE
        )
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fetch(FILES, tmp_path / "a")
    assert complete(tmp_path / "a")
    assert hub.requests == []
    cached = huggingface_hub.try_to_load_from_cache(BIG.repo, BIG.name, revision=BIG.revision)
    assert (tmp_path / "a" / BIG.name).samefile(str(cached))


def test_a_damaged_cache_is_not_believed(hub: LoopbackHub, tmp_path: Path):
    import huggingface_hub

    cached = huggingface_hub.hf_hub_download(
        BIG.repo, BIG.name, revision=BIG.revision, cache_dir=constants.HF_HUB_CACHE
    )
    Path(cached).write_bytes(b"damaged")
    fetch(FILES, tmp_path / "a")
    assert complete(tmp_path / "a")


def test_models_share_the_parts_they_have_in_common(hub: LoopbackHub, tmp_path: Path):
    fetch(FILES, folder_of("family:one"))
    hub.requests.clear()
    fetch(FILES, folder_of("family:two"))
    assert hub.requests == []
    assert (folder_of("family:one") / BIG.name).samefile(folder_of("family:two") / BIG.name)


def test_what_cannot_be_linked_is_copied_and_each_copy_read_once(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As where the other place is on another disk."""

    def refuse(_source: object, _target: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    fetch(FILES, folder_of("family:one"))
    hub.requests.clear()
    hashed: list[Path] = []
    monkeypatch.setattr(fetching.os, "link", refuse)
    monkeypatch.setattr(fetching, "sha256", lambda path: [hashed.append(path), sha256(path)][1])
    fetch(FILES, tmp_path / "a")
    assert complete(tmp_path / "a")
    assert hub.requests == []
    assert len(hashed) == len(set(hashed)) == 2 * len(FILES)  # the source, and what came of it


def other_contents(hub: LoopbackHub) -> None:
    hub.contents[BIG.name] = bytes(BIG.size)


def another_file(hub: LoopbackHub) -> None:
    hub.declared[BIG.name] = "ab" * 32


def longer_file(hub: LoopbackHub) -> None:
    hub.contents[BIG.name] += b"more"


def no_such_file(hub: LoopbackHub) -> None:
    del hub.contents[BIG.name]


def always(status: int):
    def answer(hub: LoopbackHub) -> None:
        hub.faults[BIG.name] = [("status", status)] * 3

    return answer


FAULTS = {
    "contents that changed on the way": (other_contents, "arrived damaged, or is another file"),
    "a mirror with another file": (another_file, "offers another net.safetensors than the one"),
    "more than the file": (longer_file, "arrived damaged, or is another file"),
    "no such file": (no_such_file, r"has no net.safetensors at 0123456789ab to give \(.* 404\)"),
    "a file that may not be read": (always(403), r"to give \(it answered 403\)"),
    "a server that is out of order": (always(503), r"gave no more of net.*\(it answered 503\)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_sentence_and_the_next_fetch_succeeds(
    hub: LoopbackHub, tmp_path: Path, fault: str
):
    cause, message = FAULTS[fault]
    cause(hub)
    with pytest.raises(WeightsError, match=message) as caught:
        fetch(FILES, tmp_path / "a")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a" / BIG.name).exists()
    hub.contents[BIG.name] = CONTENTS[BIG.name]
    hub.declared[BIG.name] = BIG.sha256
    hub.faults.clear()
    fetch(FILES, tmp_path / "a")
    assert complete(tmp_path / "a")


def test_nobody_answers(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    point_at("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(WeightsError, match=r"127\.0\.0\.1:9 gave no more of .* check the conn"):
        fetch(FILES, tmp_path / "a")


def test_offline_without_the_file(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"HF_HUB_OFFLINE is set, and net.* is not in the cache"):
        fetch(FILES, tmp_path / "a")


def test_too_little_room_is_said_before_the_first_byte(hub: LoopbackHub, tmp_path: Path):
    huge = replace(BIG, size=10**18)
    with pytest.raises(WeightsError, match=r"1000000000\.0 GB are still to be fetched, and"):
        fetch([huge, SMALL], tmp_path / "a")
    assert hub.requests == []


def test_a_disk_that_fills_up_on_the_way(hub: LoopbackHub, tmp_path: Path):
    with (
        no_file_beyond(200_000),
        pytest.raises(WeightsError, match=r"the disk is full \(File too large\)"),
    ):
        fetch(FILES, tmp_path / "a")
    assert partial(tmp_path / "a") == [200_000]
    fetch(FILES, tmp_path / "a")
    assert complete(tmp_path / "a")


def test_two_fetches_do_not_meet(hub: LoopbackHub, tmp_path: Path):
    def again(progress: FetchProgress) -> None:
        with pytest.raises(WeightsError, match="another fetch is at work there"):
            fetch(FILES, tmp_path / "a")

    fetch(FILES, tmp_path / "a", again)
    assert complete(tmp_path / "a")


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r'pip install "skipsr\[hub\]"'):
        fetch(FILES, tmp_path / "a")


# models


@pytest.fixture
def model_on_the_hub(
    hub: LoopbackHub, published: SeedVR2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> LoopbackHub:
    """A `seedvr2:3b` of a few kilobytes in the place of the published one."""
    (tmp_path / "parts").mkdir()
    write_parts(published, tmp_path / "parts")
    contents = {path.name: path.read_bytes() for path in (tmp_path / "parts").iterdir()}
    hub.contents |= contents
    hub.declared |= {file.name: file.sha256 for file in as_published(contents)}
    monkeypatch.setitem(PUBLISHED, "3b", as_published(contents))  # type: ignore[arg-type]
    return hub


def test_a_fetched_model_runs_by_its_name(
    model_on_the_hub: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(
        WeightsError, match=r"fetch its files .* skipsr models fetch seedvr2:3b; or"
    ):
        find_model("seedvr2:3b")
    folder = folder_of("seedvr2:3b")
    assert run(["models", "fetch", "seedvr2:3b"]) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    assert run(["models", "list"]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["seedvr2:3b"] == f"fetched: {folder}"
    assert rows["seedvr2:7b"] == (
        "needs its files: skipsr models fetch seedvr2:7b (17.0 GB), or --weights"
    )
    assert rows["seedvr2:3b-50"] == "needs files of yours: --weights FOLDER or FILE"

    Image.fromarray(make_frames(1, 16, 24)[0]).save(tmp_path / "in.png")
    arguments = [str(tmp_path / "in.png"), str(tmp_path / "out.png"), "--model", "seedvr2:3b"]
    assert run(["upscale", *arguments, "--scale", "2", "--dense", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["model"] == "seedvr2:3b"
    with pytest.raises(WeightsError, match="seedvr2:3b-50 is not bundled: give"):
        find_model("seedvr2:3b-50")  # files of the same shape, of another model


def test_an_interrupted_fetch_is_no_model(model_on_the_hub: LoopbackHub, tmp_path: Path):
    model_on_the_hub.faults["ema_vae.pth"] = [("status", 404)]
    with pytest.raises(WeightsError, match=r"has no ema_vae\.pth"):
        fetch_model("seedvr2:3b")
    assert not any(model.fetched for model in list_models())
    with pytest.raises(WeightsError, match="not bundled"):
        find_model("seedvr2:3b")
    assert fetch_model("seedvr2:3b") == folder_of("seedvr2:3b")
    assert find_model("seedvr2:3b").files.folder == folder_of("seedvr2:3b")


def test_another_folder_is_given_as_weights(model_on_the_hub: LoopbackHub, tmp_path: Path):
    assert run(["models", "fetch", "seedvr2:3b", "--to", str(tmp_path / "mine")]) == 0
    names = {path.name for path in (tmp_path / "mine").iterdir() if path.name[0] != "."}
    assert names == {file.name for file in PUBLISHED["3b"]}
    assert not folder_of("seedvr2:3b").exists()


def test_models_without_known_files(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"3b-50 has no published .* seedvr2:3b, seedvr2:7b"):
        fetch_model("seedvr2:3b-50", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_pinned_is_whole():
    """Commits and digests are complete; half-precision sizes fit the tensors of our manifests."""
    for files in PUBLISHED.values():
        for file in files:
            assert len(file.revision) == 40
            assert len(file.sha256) == 64
            assert int(file.revision + file.sha256, 16)
        assert len({file.name for file in files}) == len(files) == 4
    sizes = {file.name: file.size for files in PUBLISHED.values() for file in files}
    numbers = {
        kind.name: sum(torch.Size(shape).numel() for shape in kind.tensors.values())
        for kind in kinds()
    }
    for name, kind in (
        ("seedvr2_ema_3b_fp16.safetensors", "seedvr2:3b transformer"),
        ("seedvr2_ema_7b_fp16.safetensors", "seedvr2:7b transformer"),
        ("ema_vae_fp16.safetensors", "seedvr2 autoencoder"),
    ):
        header = sizes[name] - 2 * numbers[kind]
        assert 8 < header < 200 * 1200, kind
    for name, tokens in (("pos_emb.pt", 58), ("neg_emb.pt", 64)):
        assert 0 < sizes[name] - tokens * 5120 * 2 < 2000


def test_a_folder_that_cannot_be_made_is_told_with_the_way_out(tmp_path: Path):
    (tmp_path / "home").touch()
    with pytest.raises(WeightsError, match=r"home/models: Not a directory; give `to` another"):
        fetch(FILES, tmp_path / "home" / "models")
