"""What the web server is told, and what it takes from strangers. Imports neither torch nor a web
framework."""

import ipaddress
import math
from dataclasses import dataclass

from skipsr.errors import SettingsError

_SHORTEST_TOKEN = 16  # characters: what nobody guesses


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """Where the web interface is served, and to whom."""

    host: str = "127.0.0.1"
    """Address to listen on. Any other than this computer's own (127.0.0.1, ::1, localhost) lets
    others in; the printed link then contains a secret, without which nothing is served."""
    port: int = 7860
    """Port to listen on; 0 picks a free one."""
    token: str | None = None
    """Secret in the link, at least 16 characters; by default generated at each start. The
    environment variable SKIPSR_TOKEN does the same, and does not show in process lists."""
    max_upload: float = 4.0
    """Largest file that is accepted, in GiB."""
    keep_hours: float = 24.0
    """Hours until a file and its result are deleted; both also go when the server stops."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"`port` {self.port} is outside 0 to 65535")
        if self.token is not None and (
            len(self.token) < _SHORTEST_TOKEN or not self.token.isascii() or " " in self.token
        ):
            raise SettingsError(
                f"`token` has to have {_SHORTEST_TOKEN} characters or more, none of them a space "
                "or beyond ASCII; leave it out to have one made"
            )
        for name in ("max_upload", "keep_hours"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise SettingsError(f"`{name}` {value:g} is not above 0")

    @property
    def is_local(self) -> bool:
        """Whether only this computer can reach it."""
        return is_loopback(self.host)

    @property
    def caps(self) -> "Caps":
        """What is taken."""
        return Caps(upload_bytes=int(self.max_upload * 2**30), keep_seconds=self.keep_hours * 3600)


def is_loopback(host: str) -> bool:
    """Whether that is a computer's own name or address of itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """Limits of what a page may ask for, so that no visitor can fill the disk or the memory."""

    upload_bytes: int = 4 * 2**30
    pixels: int = 7680 * 4320
    """Of a frame, before and after."""
    seconds: float = 4 * 3600.0
    """Length of a video."""
    frames: int = 1_000_000
    streams: int = 32
    """Streams in a file, of all kinds."""
    jobs: int = 24
    """Files that are kept at a time."""
    waiting: int = 12
    """Jobs that wait for their turn."""
    uploads: int = 4
    """Files that are sent at a time."""
    listeners: int = 32
    """Pages that are told of progress at a time."""
    idle_seconds: float = 20.0
    """Time for which an upload may stand still."""
    least_rate: float = 16 * 2**10
    """Bytes per second of an upload, on average after `idle_seconds`."""
    look_seconds: float = 90.0
    """Time in which a file has to be understood."""
    keep_seconds: float = 24 * 3600.0
    """Time for which a file and its result are kept."""
