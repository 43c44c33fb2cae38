"""Files that appear under their names only when complete."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Generator[Path]:
    """A name beside `path` to write to; the file becomes `path` when the block ends.

    It is removed if the block fails. The name is this process's own, so that two that write the
    same file do not meet.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
