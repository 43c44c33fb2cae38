"""A server that is started and stopped: its address, its token, its folder."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from urllib.parse import quote

import uvicorn

from skipsr.errors import SettingsError
from skipsr.settings import RuntimeSettings
from skipsr.web.app import Server, make_app
from skipsr.web.settings import WebSettings

_PREFIX = "skipsr-web-"
_ABANDONED = 3600.0  # seconds since its server last touched a folder, which it does every minute
_GRACE = 3  # seconds that open connections get when the server ends


def serve(settings: WebSettings, runtime: RuntimeSettings, announce: Callable[[str], None]) -> None:
    """Serve the page until a signal ends it.

    Args:
        announce: told the link to open, once the server listens; then others for the same page.

    Raises:
        SettingsError: when it cannot listen there.
    """
    if settings.token is None and (given := os.environ.get("SKIPSR_TOKEN")):
        settings = replace(settings, token=given)
    token = settings.token
    if token is None and not settings.is_local:
        token = secrets.token_urlsafe(24)
    listening = _listen(settings)
    _remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        server = Server(folder, settings.caps, runtime)
        for link in _links(settings.host, listening.getsockname()[1], token):
            announce(link)
        config = uvicorn.Config(
            make_app(server, token),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE,
            h11_max_incomplete_event_size=2**16,
        )
        running = _Uvicorn(config, server)
        # the usual ways to end it
        with contextlib.suppress(KeyboardInterrupt), _ends_with_terminal(running):
            running.run(sockets=[listening])
    finally:
        listening.close()
        shutil.rmtree(folder, ignore_errors=True)


class _Uvicorn(uvicorn.Server):
    """Ends streams of events when it is told to end; they would go on forever."""

    def __init__(self, config: uvicorn.Config, server: Server) -> None:
        super().__init__(config)
        self._own = server

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._own.close()


@contextlib.contextmanager
def _ends_with_terminal(server: _Uvicorn) -> Generator[None]:
    """Ends it when its terminal is closed, as uvicorn does by itself for Ctrl-C and TERM."""
    before = signal.getsignal(signal.SIGHUP) if hasattr(signal, "SIGHUP") else signal.SIG_IGN
    if before is signal.SIG_IGN:  # by nohup
        yield
        return
    signal.signal(signal.SIGHUP, server.handle_exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _listen(settings: WebSettings) -> socket.socket:
    try:
        places = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        family, _, _, _, address = places[0]
        listening = socket.create_server(address[:2], family=family)
    except OSError as error:
        raise SettingsError(
            f"cannot listen at `host` {settings.host}, `port` {settings.port}: {error.strerror}; "
            "give another `port`, or 0 for one that is free"
        ) from error
    return listening


def _links(host: str, port: int, token: str | None) -> list[str]:
    """By the machine's name and, since not every network knows that, by its address."""
    every = host in ("0.0.0.0", "::")
    hosts = [socket.gethostname(), *_address(host)] if every else [host]
    hosts = [f"[{host}]" if ":" in host else host for host in hosts]
    end = f"?token={quote(token, safe='')}" if token else ""
    return [f"http://{host}:{port}/{end}" for host in hosts]


def _address(unspecified: str) -> list[str]:
    """The address under which this machine is known to others, if it has any."""
    kind, outside = socket.AF_INET, "192.0.2.1"  # of documentation; nothing is sent there
    if ":" in unspecified:
        kind, outside = socket.AF_INET6, "2001:db8::1"
    try:
        with socket.socket(kind, socket.SOCK_DGRAM) as asking:
            asking.connect((outside, 9))
            return [asking.getsockname()[0]]
    except OSError:
        return []


def _remove_abandoned() -> None:
    """Folders of servers that were killed, and could not remove them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)
