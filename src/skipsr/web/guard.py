"""Access control: the Host and Origin headers, the token, and the security headers of answers."""

import hashlib
import secrets
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skipsr.web.errors import RequestError
from skipsr.web.settings import is_loopback

_READING = ("GET", "HEAD")
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Middleware around everything.

    Without a token only this computer's own names are answered, so that no page of another site
    reaches the server under a name of its own (DNS rebinding). With one the name does not matter:
    such a page has neither the token nor the cookie.
    """

    def __init__(self, app: ASGIApp, token: str | None = None) -> None:
        self._app, self._token = app, token
        # browsers keep cookies by host, whatever the port: servers side by side have names apart
        self._cookie = "skipsr-" + hashlib.sha256((token or "").encode()).hexdigest()[:8]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["type"] != "http":
            return  # there are no websockets here
        headers = Headers(scope=scope)
        try:
            answer = self._check(scope, headers)
        except RequestError as refusal:
            answer = JSONResponse({"error": str(refusal)}, refusal.status)
            if scope["path"] == "/":  # for people
                answer = PlainTextResponse(f"skipsr: {refusal}\n", refusal.status)
        await (answer or self._app)(scope, receive, send_guarded)

    def _check(self, scope: Scope, headers: Headers) -> Response | None:
        """An answer in place of the app's own, or none."""
        host = headers.get("host", "")
        if self._token is None and not is_loopback(_name(host)):
            raise RequestError(421, "this server answers to 127.0.0.1 and localhost alone")
        own = bool(host) and _origin(headers) == host
        # what a browser says of itself, and no page can forge: behind a proxy Host may be another
        own = own or headers.get("sec-fetch-site") == "same-origin"
        if scope["method"] not in _READING and not own:
            raise RequestError(403, "only this server's own page may do that")
        if self._token is None:
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if given and scope["path"] == "/" and self._is_token(given):
            return self._let_in()
        if not self._is_token(self._from_cookie(headers)):
            raise RequestError(401, "open the link that the server printed: it holds the token")
        return None

    def _is_token(self, given: str) -> bool:
        return self._token is not None and secrets.compare_digest(
            given.encode(), self._token.encode()
        )

    def _from_cookie(self, headers: Headers) -> str:
        # not SimpleCookie, which stops at the first cookie of others that it dislikes
        return cookie_parser(headers.get("cookie", "")).get(self._cookie, "")

    def _let_in(self) -> Response:
        """To the page, the token in a cookie and out of the address."""
        answer = RedirectResponse("/", 303)
        assert self._token is not None
        answer.set_cookie(self._cookie, self._token, httponly=True, samesite="lax")
        return answer


def _origin(headers: Headers) -> str:
    """Host and port of the page that asks; empty for one that does not say."""
    try:
        return urlsplit(headers.get("origin", "")).netloc
    except ValueError:
        return ""


def _name(host: str) -> str:
    """The name in a Host header, without a port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
