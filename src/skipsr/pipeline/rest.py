"""The frames that a job keeps beside its last segment, for the next window to be blended into."""

from itertools import chain
from pathlib import Path

from safetensors.torch import load_file

from skipsr.clip import Clip
from skipsr.files import sha256, sync
from skipsr.pipeline.manifest import BEGUN, REST, Rest
from skipsr.weights.save import save_tensors


def save_rest(folder: Path, clip: Clip) -> Rest:
    """Keep frames bit for bit, in a file that outlives a power cut.

    Raises:
        OSError: when it cannot be written.
    """
    path = folder / Rest.file_of(clip.start)
    save_tensors(path, {"frames": clip.frames.contiguous()})
    sync(path)
    sync(folder)
    return Rest(start=clip.start, digest=sha256(path))


def load_rest(folder: Path, rest: Rest | None, start: int) -> Clip | None:
    """What was kept, if it begins with the frame `start`; None if it is damaged or gone."""
    if rest is None or rest.start != start:
        return None
    path = folder / Rest.file_of(rest.start)
    try:
        if sha256(path) != rest.digest:
            return None
        return Clip(load_file(path)["frames"], rest.start)
    except OSError:
        return None


def tidy_rests(folder: Path, kept: Rest | None) -> None:
    """Remove all but one of what was kept so far, and what killed runs had begun to write."""
    for path in chain.from_iterable(map(folder.glob, (f"{REST}*", f"{BEGUN}*", ".*.part"))):
        if kept is None or path.name != Rest.file_of(kept.start):
            path.unlink()
