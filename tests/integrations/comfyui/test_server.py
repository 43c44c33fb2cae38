"""A real ComfyUI without a screen, on the processor, runs the example by its HTTP interface.

`COMFYUI_DIR` names a checkout, `COMFYUI_PYTHON` an interpreter with its requirements and skipsr
(by default the one that runs the tests).
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from made_models import make_frames
from made_videos import make_video, read_all

PACK = Path(__file__).parents[3] / "integrations" / "comfyui"
TIMES = [0, 3, 4, 9, 12, 20]
pytestmark = pytest.mark.skipif(
    "COMFYUI_DIR" not in os.environ, reason="COMFYUI_DIR names no checkout of ComfyUI"
)


class Server:
    """A running server and its folders."""

    def __init__(self, address: str, base: Path) -> None:
        self.address, self.base = address, base

    def ask(self, path: str, content: Any = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        with urllib.request.urlopen(f"{self.address}{path}", data, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def start(self, workflow: dict[str, Any]) -> str:
        return self.ask("/prompt", {"prompt": workflow})["prompt_id"]

    def wait(self, prompt: str, seconds: float = 120) -> dict[str, Any]:
        """What became of a workflow."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = self.ask(f"/history/{prompt}")
            if prompt in found:
                return found[prompt]
            time.sleep(0.1)
        raise AssertionError(f"{prompt} is not done after {seconds} s")

    def run(self, workflow: dict[str, Any]) -> dict[str, Any]:
        """What a workflow that ends well gives."""
        done = self.wait(self.start(workflow))
        failed = self.messages(done).get("execution_error")
        assert failed is None, "".join((*failed["traceback"], failed["exception_message"]))
        return done

    def messages(self, done: dict[str, Any]) -> dict[str, Any]:
        return dict(done["status"]["messages"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    base = tmp_path_factory.mktemp("comfyui")
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "skipsr").symlink_to(PACK)
    for name in ("input", "output", "models", "user"):
        (base / name).mkdir()
    make_video(
        base / "input" / "clip.mp4",
        list(make_frames(6, 24, 32)),
        times=TIMES,
        time_base=Fraction(1, 50),
        audio_seconds=0.4,
    )
    make_video(base / "input" / "long.mp4", list(make_frames(200, 90, 160)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        os.environ.get("COMFYUI_PYTHON", sys.executable), "main.py", "--cpu",
        "--listen", "127.0.0.1", "--port", str(port), "--base-directory", str(base),
        "--disable-all-custom-nodes", "--whitelist-custom-nodes", "skipsr",
        "--disable-api-nodes", "--database-url", "sqlite:///:memory:",
    ]  # fmt: skip
    with (base / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=os.environ["COMFYUI_DIR"], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        found = Server(f"http://127.0.0.1:{port}", base)
        _wait_until_up(found, process)
        yield found
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_up(server: Server, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        try:
            server.ask("/system_stats")
            return
        except urllib.error.URLError:
            if process.poll() is not None:
                break
            time.sleep(0.2)
    raise AssertionError((server.base / "log").read_text()[-4000:])


def saved(done: dict[str, Any], node: str, server: Server) -> Path:
    (file,) = next(iter(done["outputs"][node].values()))[:1]
    return server.base / "output" / file["subfolder"] / file["filename"]


def example() -> dict[str, Any]:
    return json.loads((PACK / "example_api" / "upscale_video.json").read_text())


def test_the_nodes_are_there_with_their_inputs(server):
    for node in ("Model", "UpscaleVideo", "UpscaleImages", "ShowMaskVideo", "ShowMaskImages"):
        (info,) = server.ask(f"/object_info/Skipsr{node}").values()
        assert info["category"] == "skipsr"
    inputs = server.ask("/object_info/SkipsrUpscaleVideo")["SkipsrUpscaleVideo"]["input"]
    assert list(inputs["required"]) == ["video", "scale", "quality"]
    assert inputs["optional"]["codec"][1]["advanced"] is True


def test_the_example_runs_and_keeps_times_and_sound(server):
    done = server.run(example())
    for node in ("4", "6"):
        info, frames, times = read_all(saved(done, node, server))
        assert frames.shape == (6, 48, 64, 3)
        assert [Fraction(t) * info.time_base for t in times] == [Fraction(t, 50) for t in TIMES]
        with av.open(str(saved(done, node, server))) as container:
            assert len([p for p in container.demux(audio=0) if p.size]) > 10


def test_images_and_the_mask_go_on_to_other_nodes(server):
    workflow = {
        "1": {"class_type": "LoadVideo", "inputs": {"file": "clip.mp4"}},
        "2": {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}},
        "3": {
            "class_type": "SkipsrUpscaleImages",
            "inputs": {"images": ["2", 0], "scale": 2.0, "quality": 0.5},
        },
        "4": {"class_type": "MaskToImage", "inputs": {"mask": ["3", 1]}},
        "5": {
            "class_type": "SaveImage",
            "inputs": {"images": ["4", 0], "filename_prefix": "computed"},
        },
        "6": {
            "class_type": "SaveImage",
            "inputs": {"images": ["3", 0], "filename_prefix": "upscaled"},
        },
    }
    done = server.run(workflow)
    for node in ("5", "6"):
        assert len(done["outputs"][node]["images"]) == 6
        info, _, _ = read_all(saved(done, node, server))
        assert (info.width, info.height) == (64, 48)


def test_what_does_not_fit_is_one_sentence(server):
    workflow = example()
    workflow["3"]["inputs"] |= {"height": 48, "scale": 3.0}
    failed = server.messages(server.wait(server.start(workflow)))["execution_error"]
    assert failed["exception_message"].strip() == "give 'scale' or 'height', not both"
    assert failed["node_id"] == "3"


def test_an_interrupt_leaves_nothing(server):
    workflow = example()
    workflow["1"]["inputs"]["file"] = "long.mp4"
    workflow["3"]["inputs"] |= {"scale": 4.0, "dense": True, "window": 5, "overlap": 1}
    before = set((server.base / "temp").glob("*"))
    prompt = server.start(workflow)
    until = time.monotonic() + 60
    while set((server.base / "temp").glob("*")) <= before and time.monotonic() < until:
        time.sleep(0.05)
    assert set((server.base / "temp").glob("*")) > before  # the job is writing
    server.ask("/interrupt", {})
    assert "execution_interrupted" in server.messages(server.wait(prompt))
    assert set((server.base / "temp").glob("*")) == before
