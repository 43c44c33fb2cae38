"""What is taken, what is made of it, and that nothing is left of what is refused."""

import asyncio
import io
import json
import os
import signal
import struct
import sys
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from made_models import make_frames
from made_videos import make_video
from PIL import Image
from starlette.requests import Request
from web_server import Web, serving

from skipsr.web.settings import Caps

CAPS = Caps(
    upload_bytes=1_000_000, pixels=1_000_000, seconds=60, frames=500, streams=3, jobs=8, waiting=2,
    uploads=4, idle_seconds=0.4, keep_seconds=3600,
)  # fmt: skip


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("web")
    with serving(folder, CAPS) as web:
        yield web
    assert not folder.exists()


@pytest.fixture
def web(started: Web) -> Iterator[Web]:
    """Without jobs, before and after."""
    yield started
    for job in started.get("/api/jobs").json()["jobs"]:
        answer = started.run(started.client.delete(f"/api/jobs/{job['id']}"))
        assert answer.status_code == 204
    assert list(started.folder.iterdir()) == []


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty frames of 32x24 at uneven times."""
    frames = list(make_frames(60, 24, 32))
    times = [i + i // 3 for i in range(60)]
    return make_video(tmp_path_factory.mktemp("film") / "film.mp4", frames, times=times)


def begin(web: Web) -> str:
    """A job that runs, for some seconds."""
    id = web.post("/api/sample").json()["id"]
    assert web.post(f"/api/jobs/{id}/upscale").status_code == 202
    web.until(id, lambda job: job["progress"].get("of", 0) > 0)
    return id


def decoded(path: Path) -> tuple[list[Any], list[float]]:
    """Frames and their seconds."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return [frame.to_ndarray(format="rgb24") for frame in frames], [f.time for f in frames]


def png(width: int, height: int) -> bytes:
    """Black, of any size, in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows)
            + chunk(b"IEND", b""))  # fmt: skip


def long_film(folder: Path) -> bytes:
    frames = list(make_frames(3, 24, 32))
    return make_video(folder / "long.mp4", frames, times=[0, 1000, 2000]).read_bytes()


def cut_film(folder: Path) -> bytes:
    whole = make_video(folder / "cut.mp4", list(make_frames(20, 24, 32))).read_bytes()
    return whole[: len(whole) // 2]


def many_streams(folder: Path) -> bytes:
    path = folder / "many.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in range(4)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        for stream in streams:
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path.read_bytes()


REFUSED = {
    "text.mp4": (lambda _: b"this is no video\n" * 50, "text.mp4"),
    "list.m3u8": (lambda _: b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "list.m3u8"),
    "list.mp4": (lambda _: b"ffconcat version 1.0\nfile /etc/passwd\n", "list.mp4"),
    "empty.mp4": (lambda _: b"", "empty (0 bytes)"),
    "wide.png": (lambda _: png(100_000, 1), "wide.png"),
    "large.png": (lambda _: png(100_000, 1000), "100 megapixels"),
    "bomb.png": (lambda _: png(100_000, 100_000), "bomb.png"),
    "cut.mp4": (cut_film, "cut.mp4 is not a video"),
    "no.png": (lambda _: b"GIF89a", "no.png is not an image"),
    "long.mp4": (long_film, "minutes"),
    "many.mkv": (many_streams, "4 streams"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_taken_is_refused_in_a_sentence(web: Web, tmp_path: Path, name: str):
    make, sentence = REFUSED[name]
    answer = web.send(name, make(tmp_path))
    assert answer.status_code == 422, answer.text
    assert sentence in answer.json()["error"]
    assert str(web.folder) not in answer.text
    assert web.left() == []


def test_a_large_file_is_refused_before_and_while_it_comes(web: Web):
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(100_000)

    for body in (bytes(CAPS.upload_bytes + 1), endless()):
        answer = web.send("large.mp4", body)
        assert answer.status_code == 413
        assert "GiB" in answer.json()["error"]
        assert web.left() == []


def test_an_upload_that_stands_still_or_trickles_is_cut_off(web: Web):
    async def still() -> AsyncIterator[bytes]:
        yield b"begun"
        await asyncio.sleep(30)

    async def trickle() -> AsyncIterator[bytes]:
        while True:
            yield b"."
            await asyncio.sleep(0.05)

    for body in (still(), trickle()):
        answer = web.send("slow.mp4", body)
        assert answer.status_code == 408
        assert web.left() == []


def test_of_fifty_uploads_at_once_few_are_taken(web: Web, small_video: Path):
    held = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield small_video.read_bytes()[:100]
        await held.wait()
        yield small_video.read_bytes()[100:]

    async def every() -> list[int]:
        sending = [
            asyncio.create_task(web.client.post("/api/files?name=x.mp4", content=slowly()))
            for _ in range(50)
        ]
        await asyncio.sleep(0.2)
        held.set()
        return sorted([(await one).status_code for one in sending])

    assert web.run(every()) == [201] * CAPS.uploads + [429] * (50 - CAPS.uploads)
    assert len(list(web.folder.iterdir())) == CAPS.uploads


def test_no_more_files_than_are_kept(web: Web, small_video: Path):
    for _ in range(CAPS.jobs):
        web.add(small_video)
    answer = web.send("one.mp4", small_video.read_bytes())
    assert answer.status_code == 429
    assert "remove" in answer.json()["error"]
    assert web.post("/api/sample").status_code == 429


@pytest.mark.parametrize(
    ("given", "shown"),
    [("../../etc/passwd.mp4", "passwd.mp4"), ("C:\\videos\\a.mp4", "a.mp4"), ("/", "file"),
     ("a\r\nset-cookie: b.mp4", "aset-cookie: b.mp4"), ("", "file"), ("x.m/../../p4", "p4"),
     ("ä" * 300 + ".mp4", "ä" * 116 + ".mp4")],
)  # fmt: skip
def test_a_name_is_shown_and_never_a_path(web: Web, small_video: Path, given: str, shown: str):
    job = web.send(given, small_video.read_bytes()).json()
    assert job["name"] == shown
    names = {path.name for path in (web.folder / job["id"]).iterdir()}
    assert names in ({"source.mp4", "poster.jpg"}, {"source", "poster.jpg"})


@pytest.mark.parametrize(
    "path",
    ["/api/jobs/unknown/result", "/api/jobs/../result", "/api/jobs/%2e%2e/result",
     "/api/jobs/..%2f..%2fetc/passwd", "/page/../app.py", "/page/%2e%2e/app.py",
     "/page/..%2fapp.py", "/page//etc/passwd", "/api/jobs/{id}/source.mp4",
     "/api/jobs/{id}/..%2fposter.jpg", "/api/jobs/{id}/poster.jpg", "/api/jobs/{id}/result"],
)  # fmt: skip
def test_no_address_leads_to_other_files(web: Web, small_video: Path, path: str):
    job = web.add(small_video)
    answer = web.get(path.format(id=job["id"]))
    assert answer.status_code == 404
    assert web.get(f"/api/jobs/{job['id']}/poster").status_code == 200


@pytest.mark.parametrize("what", ["upscale", "preview", "cancel"])
def test_an_unknown_job_is_told(web: Web, what: str):
    answer = web.post(f"/api/jobs/unknown/{what}")
    assert answer.status_code == 404
    assert "no such job" in answer.json()["error"]


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [({"scale": 99}, "`scale` 99"), ({"scale": 2, "height": 100}, "not both"),
     ({"scale": "4"}, "a number"), ({"scale": True}, "a number"), ({"scale": float("nan")}, "nan"),
     ({"height": 99.5}, "whole"), ({"height": 4320}, "megapixels"), ({"detail": 2}, "`detail` 2"),
     ({"quality": -1}, "`quality` -1"), ({"model": "seedvr2:3b"}, "`model`"),
     ({"model": 3}, "`model`"), ({"weights": "/etc"}, "weights"),
     ({"model": "seedvr2:nano", "detail": 0.3}, "`detail` is not for"),
     ({"scale": 10**400}, "a number of at most"), ({"quality": -(10**400)}, "a number"),
     ({"codec": "ffv1"}, "h264"), ({"overwrite": 1}, "overwrite")],
)  # fmt: skip
def test_answers_that_cannot_be_are_refused(
    web: Web, small_video: Path, answers: dict[str, object], sentence: str
):
    job = web.add(small_video)
    body = json.dumps(answers).encode()
    answer = web.run(web.client.post(f"/api/jobs/{job['id']}/upscale", content=body))
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]
    assert web.job(job["id"])["state"] == "ready"


def test_a_job_that_is_removed_as_its_form_comes_is_not_started(web: Web, small_video: Path):
    id = web.add(small_video)["id"]

    async def late() -> AsyncIterator[bytes]:
        await web.client.delete(f"/api/jobs/{id}")
        yield b"{}"

    for verb in ("upscale", "preview"):
        answer = web.run(web.client.post(f"/api/jobs/{id}/{verb}", content=late()))
        assert answer.status_code == 404


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b"[" * 9000, b"1" * 20_000])
def test_what_is_no_form_is_refused(web: Web, small_video: Path, body: bytes):
    job = web.add(small_video)
    answer = web.run(web.client.post(f"/api/jobs/{job['id']}/upscale", content=body))
    assert answer.status_code in (400, 413)


def test_input_and_result_have_one_size_and_the_same_times(web: Web, film: Path):
    """Over several windows, of a source with uneven times."""
    job = web.upscaled(web.add(film)["id"], scale=2)
    assert (job["state"], job["error"]) == ("done", "")
    folder = web.folder / job["id"]
    before, before_times = decoded(folder / "before.mp4")
    after, after_times = decoded(folder / "result.mp4")
    assert len(before) == len(after) == 60
    assert {frame.shape for frame in before + after} == {(48, 64, 3)}
    assert before_times == after_times == pytest.approx(decoded(film)[1])
    assert web.get(f"/api/jobs/{job['id']}/times").json() == pytest.approx(after_times)
    grid = job["result"]["grid"]
    mask = web.get(f"/api/jobs/{job['id']}/mask").content
    assert len(mask) == 60 * grid["rows"] * grid["columns"]
    assert job["result"]["report"]["frames"] == 60
    assert job["live"] >= 1


def test_the_input_is_the_plainly_upsampled_one(web: Web, tmp_path: Path):
    from skipsr.clip import Clip
    from skipsr.loading import load_upscaler
    from skipsr.nn.resize import resize_bicubic

    path = tmp_path / "picture.png"
    Image.fromarray(make_frames(1, 20, 27)[0]).save(path)
    job = web.upscaled(web.add(path)["id"], scale=4)
    folder = web.folder / job["id"]
    clip = Clip.from_array(make_frames(1, 20, 27))
    upscaler = load_upscaler()
    base = Clip(resize_bicubic(clip.frames, (80, 108))).to_array()[0]
    assert np.array_equal(np.asarray(Image.open(folder / "before.png")), base)
    result = upscaler.upscale(clip, (80, 108)).clip.to_array()[0]
    assert np.array_equal(np.asarray(Image.open(folder / "result.png")), result)


def test_files_are_sent_in_parts_and_downloaded_under_their_name(web: Web, small_video: Path):
    id = web.add(small_video)["id"]
    job = web.upscaled(id, scale=2)
    for role in ("before", "after", "mask"):
        whole = web.get(f"/api/jobs/{id}/{role}")
        part = web.get(f"/api/jobs/{id}/{role}", range="bytes=3-7")
        assert (part.status_code, part.content) == (206, whole.content[3:8])
    download = web.get(f"/api/jobs/{id}/result?v={job['version']}&download")
    assert 'filename="small-64x48.mp4"' in download.headers["content-disposition"]
    assert "attachment" in download.headers["content-disposition"]


def test_browsers_without_h264_get_av1(web: Web, small_video: Path):
    id = web.add(small_video)["id"]
    web.upscaled(id, scale=4, codec="av1")
    for role in ("before", "after"):
        answer = web.get(f"/api/jobs/{id}/{role}")
        assert answer.headers["content-type"] == "video/webm"
        with av.open(io.BytesIO(answer.content)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.codec.canonical_name == "av1"
            assert sum(1 for _ in container.decode(stream)) == 6
    assert web.get(f"/api/jobs/{id}/result").headers["content-type"] == "video/mp4"


def test_browsers_without_h264_get_images_as_they_are(web: Web, tmp_path: Path):
    path = tmp_path / "picture.png"
    Image.fromarray(make_frames(1, 20, 27)[0]).save(path)
    job = web.upscaled(web.add(path)["id"], scale=2, codec="av1")
    assert (job["state"], job["error"]) == ("done", "")
    for role in ("before", "after"):
        answer = web.get(f"/api/jobs/{job['id']}/{role}")
        assert Image.open(io.BytesIO(answer.content)).size == (54, 40)


@pytest.mark.parametrize("frame", [True, False, -1, 1.0, "1", None])
def test_what_is_no_index_of_a_frame_is_refused(web: Web, small_video: Path, frame: object):
    id = web.add(small_video)["id"]
    answer = web.post(f"/api/jobs/{id}/preview", {"frame": frame})
    assert answer.status_code == 400
    assert "no such frame: give 0 to 5" in answer.json()["error"]


def test_a_preview_is_one_frame_of_what_the_job_would_give(web: Web, film: Path):
    id = web.add(film)["id"]
    for frame in (0, 31):
        assert web.post(f"/api/jobs/{id}/preview", {"frame": frame}).status_code == 202
        job = web.settled(id)
        assert (job["state"], job["error"], job["preview"]["frame"]) == ("ready", "", frame)
        before = Image.open(io.BytesIO(web.get(f"/api/jobs/{id}/preview-before").content))
        after = Image.open(io.BytesIO(web.get(f"/api/jobs/{id}/preview-after").content))
        assert before.size == after.size == (128, 96)
        small = decoded(film)[0][frame].astype(float)
        assert np.abs(np.asarray(before.resize((32, 24), Image.Resampling.BOX)) - small).mean() < 6
    assert web.post(f"/api/jobs/{id}/preview", {"frame": 60}).status_code == 400
    job = web.upscaled(id, scale=2)
    assert job["preview"] is None
    assert web.get(f"/api/jobs/{id}/preview-after").status_code == 404


def test_what_is_shown_before_the_preview_is_the_frame_it_is_of(web: Web, film: Path):
    job = web.add(film)
    assert job["info"]["poster"] == 30
    poster = Image.open(io.BytesIO(web.get(f"/api/jobs/{job['id']}/poster").content))
    off = [np.abs(np.asarray(poster, float) - frame).mean() for frame in decoded(film)[0]]
    assert int(np.argmin(off)) == 30


def test_progress_is_told_within_a_window(web: Web):
    id = begin(web)
    web.until(id, lambda job: job["progress"].get("done", 0) > job["progress"].get("frames", 0))
    web.post(f"/api/jobs/{id}/cancel")


def test_a_worker_that_is_killed_fails_one_job_alone(web: Web, small_video: Path):
    id, next_one = begin(web), web.add(small_video)["id"]
    web.post(f"/api/jobs/{next_one}/upscale")
    worker = web.server.board.worker.pid
    assert worker is not None
    os.kill(worker, signal.SIGKILL)  # as the system does when memory is short
    job = web.settled(id)
    assert job["state"] == "failed"
    assert "memory" in job["error"]
    assert {path.name for path in (web.folder / id).iterdir()} == {"source.mp4", "poster.jpg"}
    assert web.settled(next_one)["state"] == "done"


def test_a_file_that_turns_out_bad_fails_under_its_own_name(web: Web, tmp_path: Path):
    parts = [
        make_video(tmp_path / f"{width}.h264", list(make_frames(4, 32, width))).read_bytes()
        for width in (32, 48)
    ]
    job = web.upscaled(web.send("two sizes.h264", b"".join(parts)).json()["id"])
    assert job["state"] == "failed"
    assert job["error"].startswith("two sizes.h264 changes size")
    assert {path.name for path in web.left()} == {"source.h264", "poster.jpg"}


def test_the_queue_outlives_a_worker_that_cannot_be_started(
    web: Web, small_video: Path, monkeypatch: pytest.MonkeyPatch
):
    id = begin(web)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        web.post(f"/api/jobs/{id}/cancel")
        web.until(id, lambda job: job["state"] == "cancelled")
        web.run(asyncio.sleep(0.1))
    assert web.upscaled(web.add(small_video)["id"])["state"] == "done"


def test_old_files_are_deleted(web: Web, small_video: Path):
    old, new = web.add(small_video)["id"], web.add(small_video)["id"]
    web.server.board.find(old).touched -= CAPS.keep_seconds + 1
    web.run(web.server.board.remove_old())
    assert [job["id"] for job in web.get("/api/jobs").json()["jobs"]] == [new]
    assert not (web.folder / old).exists()


def test_the_form_is_made_of_the_settings(web: Web):
    from skipsr.backbones.basicvsr.options import BasicVSROptions
    from skipsr.fields import fields_of
    from skipsr.settings import JobSettings, SkipSettings

    told = web.get("/api/options").json()
    names = [model["name"] for model in told["models"]]
    assert names == ["skipvsr:nano", "seedvr2:nano"]
    fields = [*fields_of(JobSettings), *fields_of(SkipSettings), *fields_of(BasicVSROptions)]
    texts = {field.name: field.text for field in fields}
    assert {c["name"]: c["text"] for c in told["controls"]} == {
        name: texts[name] for name in ("scale", "height", "detail", "quality")
    }
    detail = next(control for control in told["controls"] if control["name"] == "detail")
    assert detail["models"] == ["skipvsr:nano"]


def test_a_proxy_is_told_to_pass_events_on_at_once(web: Web):
    answer = web.run(web.server.events(Request({"type": "http"})))
    assert answer.headers["x-accel-buffering"] == "no"


def test_a_server_needs_no_torch(tmp_path: Path):
    import subprocess
    import sys

    code = "import skipsr.web.serve, sys; print([n for n in ('torch', 'av') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_jobs_wait_for_their_turn_and_a_cancelled_one_leaves_its_input_alone(
    web: Web, small_video: Path
):
    sample = begin(web)
    assert web.post(f"/api/jobs/{sample}/upscale").status_code == 409
    waiting = [web.add(small_video)["id"] for _ in range(3)]
    assert [web.post(f"/api/jobs/{id}/upscale").status_code for id in waiting] == [202, 202, 429]
    assert [web.job(id)["place"] for id in waiting] == [1, 2, None]
    assert web.post(f"/api/jobs/{waiting[0]}/cancel").json()["state"] == "cancelled"
    assert web.job(waiting[1])["place"] == 1
    assert web.post(f"/api/jobs/{sample}/cancel").json()["state"] == "cancelled"
    for id in (sample, waiting[0]):
        left = {path.name for path in (web.folder / id).iterdir()}
        assert left == {"source.mp4", "poster.jpg"}
    web.until(waiting[1], lambda job: job["state"] == "running")
