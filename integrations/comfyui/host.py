"""What ComfyUI does for a run: progress, interrupts, device memory, and where files go."""

import gc
import inspect
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy import model_management
from comfy.utils import ProgressBar
from comfy_api.v0_0_2 import Input, InputImpl

from skipsr.errors import Cancelled, SkipsrError, with_notes
from skipsr.limits import MemoryPlan
from skipsr.pipeline.job import Progress

from .inputs import spell


class NodeError(Exception):
    """One sentence that ComfyUI shows for a node."""


@contextmanager
def comfy_errors() -> Iterator[None]:
    """skipsr's errors as sentences of the node, and an interrupt as ComfyUI's own exception."""
    try:
        yield
    except Cancelled as cancelled:
        if cancelled.__cause__ is None:
            raise
        raise cancelled.__cause__ from None
    except SkipsrError as error:
        raise NodeError(spell(with_notes(str(error), error))) from None


class Watch:
    """Watches a job for a node: shows its progress, and ends it when ComfyUI is interrupted."""

    def __init__(self, node: str | None) -> None:
        self._node = node

    def __call__(self, progress: Progress) -> None:
        self.tell(int(progress.frames + progress.ahead), progress.of)

    def tell(self, frames: int, of: int) -> None:
        """Show that so many frames of all are done.

        Raises:
            Cancelled: when ComfyUI was asked to stop, from its own exception.
        """
        bar = ProgressBar(max(1, of), node_id=self._node)
        try:
            model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(frames, max(1, of))  # a server's own hook looks for interrupts, too
        except model_management.InterruptProcessingException as interrupt:
            raise Cancelled from interrupt


def device_name() -> str:
    """The device that ComfyUI computes on."""
    return str(model_management.get_torch_device())


def make_room(device: torch.device, need: float) -> None:
    """Let ComfyUI unload models of its own until so many bytes of a device are free."""
    model_management.free_memory(need, device)


def give_back() -> None:
    """Return memory that nothing uses any more to the device."""
    gc.collect()
    model_management.soft_empty_cache()


def bytes_needed(plan: MemoryPlan | None) -> float:
    """Memory that a run takes; all where that is not known."""
    return 1e30 if plan is None else plan.peak


def new_file(suffix: str) -> Path:
    """A name in ComfyUI's temporary folder, which it empties when it starts."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"skipsr-{uuid.uuid4().hex}{suffix}"


@contextmanager
def video_file(video: Input.Video) -> Iterator[Path]:
    """A file with what a video shows: its own, or one that is removed when the block is left.

    What ComfyUI trims or edits only as it saves, it saves first, without loss where it can: times
    and sound stay as they are, and frames are not held in memory.
    """
    from_file = isinstance(video, InputImpl.VideoFromFile) and not _edited(video)
    source = video.get_stream_source() if from_file else None
    if isinstance(source, str):
        yield Path(source)
        return
    held = new_file(".mp4")
    try:
        if source is not None:
            held.write_bytes(source.getbuffer())
        else:
            video.save_to(str(held), **_lossless(video))
        yield held
    finally:
        held.unlink(missing_ok=True)


def _edited(video: Any) -> bool:
    """Whether a file holds more than the video shows.

    Versions of the API that trim or crop, but tell nobody, keep it in private attributes.
    """
    trim = getattr(video, "get_active_trim_window", None)
    edits = getattr(video, "has_pending_frame_edits", None)
    trimmed = any(trim()) if trim else _private(video, "start_time") or _private(video, "duration")
    cropped = edits() if edits else _private(video, "crop")
    return bool(trimmed or cropped)


def _private(video: Any, name: str) -> Any:
    """Of ComfyUI's class."""
    return getattr(video, f"_VideoFromFile__{name}", None)


def _lossless(video: Any) -> dict[str, Any]:
    known = inspect.signature(video.save_to).parameters
    return {"crf": 0} if "crf" in known else {}
