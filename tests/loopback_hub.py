"""A hub on the loopback: what `huggingface_hub` asks of the real one, and its faults."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from skipsr.weights.published import PublishedFile

REPO, COMMIT = "someone/model", "0123456789abcdef0123456789abcdef01234567"


def published(contents: Mapping[str, bytes]) -> tuple[PublishedFile, ...]:
    """As our table would name these files."""
    return tuple(
        PublishedFile(
            repo=REPO,
            revision=COMMIT,
            name=name,
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        for name, content in contents.items()
    )


class LoopbackHub:
    """Files by name, each behind a redirect to a store, as large files are on the hub.

    `faults` are taken in turn by the reads of a file: a status to answer with, or the number of
    bytes after which the connection is cut.
    """

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents
        self.declared = {name: hashlib.sha256(c).hexdigest() for name, c in contents.items()}
        self.faults: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
        self.ranges = True  # whether it can begin in the middle
        self.requests: list[str] = []  # "METHOD name range"
        self.tokens: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator["LoopbackHub"]:
        thread = Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        self.tokens += request.headers.get_all("Authorization") or []
        if store := re.fullmatch(r"/store/(.+)", request.path):
            self._send(request, store[1])
            return
        found = re.fullmatch(rf"/{REPO}/resolve/{COMMIT}/(.+)", request.path)
        if found is None or found[1] not in self.contents:
            request.send_response(404)
            request.send_header("X-Error-Code", "EntryNotFound")
        else:
            if not body:
                self.requests.append(f"HEAD {found[1]}")
            request.send_response(302)
            request.send_header("X-Repo-Commit", COMMIT)
            request.send_header("X-Linked-ETag", f'"{self.declared[found[1]]}"')
            request.send_header("X-Linked-Size", str(len(self.contents[found[1]])))
            # another name of this machine, so that it is another host
            request.send_header("Location", f"http://localhost:{self.port}/store/{found[1]}")
        request.send_header("Content-Length", "0")
        request.end_headers()

    def _send(self, request: BaseHTTPRequestHandler, name: str) -> None:
        asked = request.headers.get("Range")
        self.requests.append(f"GET {name} {asked or ''}".strip())
        content = self.contents[name]
        fault, value = self.faults[name].pop(0) if self.faults[name] else ("", 0)
        if fault == "status":
            request.send_response(value)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        request.wfile.write(content[start : start + value] if fault == "cut" else content[start:])
        if fault == "cut":
            request.wfile.flush()
            request.close_connection = True
            request.connection.shutdown(2)
