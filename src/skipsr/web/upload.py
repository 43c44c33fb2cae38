"""Uploads: streamed to the disk, within limits of size and time."""

import asyncio
import errno
import re
import time
import unicodedata
from collections.abc import AsyncIterator, Mapping
from pathlib import Path, PurePosixPath

from skipsr.web.errors import RequestError
from skipsr.web.settings import Caps

_LONGEST_NAME = 120
_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")


def shown_name(name: str) -> str:
    """A client's name of a file as text to show and to name a download by; it is never a path."""
    plain = "".join(
        letter for letter in name.replace("\\", "/") if unicodedata.category(letter)[0] != "C"
    )
    return PurePosixPath(plain).name[-_LONGEST_NAME:] or "file"


def source_name(name: str) -> str:
    """What the server calls a file of that name: its ending says whether it is an image."""
    suffix = PurePosixPath(shown_name(name)).suffix.lower()
    return f"source{suffix}" if _SUFFIX.fullmatch(suffix) else "source"


async def receive(
    pieces: AsyncIterator[bytes], headers: Mapping[str, str], path: Path, caps: Caps
) -> None:
    """Write what comes in to `path`.

    Raises:
        RequestError: for more than the cap, or what comes too slowly.
    """
    promised = headers.get("content-length", "")
    if promised.isdecimal() and int(promised) > caps.upload_bytes:
        raise _too_large(caps)
    began, size = time.monotonic(), 0
    try:
        with path.open("wb") as file:
            while True:
                async with asyncio.timeout(caps.idle_seconds):
                    piece = await anext(pieces, None)
                if piece is None:
                    return
                size += len(piece)
                if size > caps.upload_bytes:
                    raise _too_large(caps)
                file.write(piece)
                taken = time.monotonic() - began
                if taken > caps.idle_seconds and size < caps.least_rate * taken:
                    raise TimeoutError
    except TimeoutError:
        raise RequestError(
            408, "the file came in too slowly and was given up: send it again"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise RequestError(
            507, "the server's disk is full: remove jobs, and send it again"
        ) from error


def _too_large(caps: Caps) -> RequestError:
    return RequestError(
        413, f"the file is larger than the {caps.upload_bytes / 2**30:.3g} GiB that are taken here"
    )
