"""Folders of clips as evaluations are given them."""

import shutil
from pathlib import Path


def copy_with_broken(clips: Path, folder: Path, whole: str) -> Path:
    """`folder`, a copy of `clips` and two that are broken.

    One cannot be opened, `broken`, and of one the last frame is cut off: `cut`, otherwise the clip
    named `whole`.
    """
    shutil.copytree(clips, folder)
    shutil.copytree(clips / whole, folder / "cut")
    last = max((folder / "cut").iterdir(), key=lambda path: int(path.stem))
    last.write_bytes(last.read_bytes()[:200])
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder
