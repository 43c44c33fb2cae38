"""Who is let in, before anything else happens."""

import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from skipsr.errors import SettingsError
from skipsr.web import serve
from skipsr.web.guard import Guard
from skipsr.web.settings import WebSettings

TOKEN = "a-secret-of-some-length;\"'&"
HOME = "http://127.0.0.1:7860"


def client(token: str | None = None, at: str = HOME) -> TestClient:
    """Of an application that answers everything with "inside"."""
    inside = Route("/{path:path}", lambda _: PlainTextResponse("inside"), methods=["GET", "POST"])
    app = Starlette(routes=[inside], middleware=[Middleware(Guard, token=token)])
    return TestClient(app, base_url=at, follow_redirects=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:7860", "localhost:1", "[::1]:7860",
                                  "127.0.0.2:7860", "127.8.0.1"])  # fmt: skip
def test_this_computers_own_names_are_answered(host: str):
    assert client().get("/", headers={"host": host}).text == "inside"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "[::1",
             "localhost@evil.example", "192.168.1.2:7860"]
)  # fmt: skip
def test_a_foreign_name_is_refused(host: str):
    answer = client().get("/api/jobs", headers={"host": host})
    assert answer.status_code == 421
    assert "localhost" in answer.json()["error"]


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "", "http://127.0.0.1:8000", "http://localhost:7860",
               "http://127.0.0.1:7860.evil.example", "http://[::1"]
)  # fmt: skip
def test_nothing_changes_for_a_foreign_page(origin: str):
    answer = client().post("/api/files", headers={"origin": origin} if origin else {})
    assert answer.status_code == 403
    assert client().post("/api/files", headers={"origin": HOME}).text == "inside"


@pytest.mark.parametrize(
    ("site", "status"), [("same-origin", 200), ("same-site", 403), ("cross-site", 403), ("", 403)]
)
def test_behind_a_proxy_that_changes_the_host_the_browser_says_whose_page_it_is(
    site: str, status: int
):
    headers = {"origin": "https://video.example", "sec-fetch-site": site}
    assert client().post("/api/files", headers=headers).status_code == status
    elsewhere = headers | {"host": "evil.example"}
    assert client().post("/api/files", headers=elsewhere).status_code == 421
    assert client(TOKEN).post("/api/files", headers=headers).status_code in (401, 403)


@pytest.mark.parametrize("path", ["/", "/api/jobs", "/page/app.js", "/api/jobs/x/result"])
@pytest.mark.parametrize("wrong", ["", "wrong", TOKEN[:-1], TOKEN + "x", "ä"])
def test_without_the_token_nothing_is_served(path: str, wrong: str):
    stranger = client(TOKEN)
    answer = stranger.get(path, params={"token": wrong}, headers={"cookie": f"skipsr-0={TOKEN}"})
    assert answer.status_code == 401
    assert "link" in answer.text
    assert "set-cookie" not in answer.headers


def test_the_link_lets_in_once_and_for_all():
    known = client(TOKEN)
    answer = known.get("/", params={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "httponly" in answer.headers["set-cookie"].lower()
    assert known.get("/api/jobs").text == "inside"
    assert known.post("/api/files", headers={"origin": HOME}).text == "inside"
    assert known.post("/api/files", headers={"origin": "http://evil.example"}).status_code == 403


@pytest.mark.parametrize("other", ["a{b}=1; ", "x; ", 'y="[1,2]"; ', "=; ", "é=1; "])
def test_cookies_of_other_programs_do_not_matter(other: str):
    known = client(TOKEN)
    own = known.get("/", params={"token": TOKEN}).headers["set-cookie"].partition(";")[0]
    known.cookies.clear()
    cookies = f"{other}{own}; {other}".encode("latin-1")
    assert known.get("/api/jobs", headers={"cookie": cookies}).text == "inside"


def test_a_cookie_of_another_server_is_none():
    known, other = client(TOKEN), client("another-secret-of-length")
    other.cookies.update(known.get("/", params={"token": TOKEN}).cookies)
    assert other.get("/").status_code == 401


def test_with_a_token_any_name_will_do():
    answer = client(TOKEN, "http://my-server.lan").get("/", params={"token": TOKEN})
    assert answer.status_code == 303


def test_browsers_are_told_what_to_refuse():
    for answer in (client().get("/"), client().get("/", headers={"host": "evil.example"})):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_the_page_has_nothing_inline_and_nothing_from_elsewhere():
    from skipsr.web import app

    page = Path(app.__file__).parent / "page"
    text = (page / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=|<style", text)
    for file in page.iterdir():
        addresses = re.findall(r"(?:https?:)?//[a-z][^\s\"']*", file.read_text())
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}, file


@pytest.mark.parametrize(
    "settings", [{"token": "short"}, {"token": "with a space in it"}, {"port": 70000},
                 {"max_upload": 0}, {"keep_hours": -1}]
)  # fmt: skip
def test_settings_that_cannot_be(settings: dict[str, object]):
    with pytest.raises(SettingsError, match=f"`{next(iter(settings))}`"):
        WebSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_this_computers_own_addresses_need_no_token(host: str):
    assert WebSettings(host=host).is_local


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "my.lan", "192.168.1.2", "127.0.0.1.lan"])
def test_other_addresses_do(host: str):
    assert not WebSettings(host=host).is_local


def test_links_are_by_name_and_by_address(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serve, "_address", lambda _: ["192.168.1.2"])
    monkeypatch.setattr(socket, "gethostname", lambda: "machine")
    assert serve._links("0.0.0.0", 7860, TOKEN) == [
        f"http://{host}:7860/?token={quote(TOKEN, safe='')}" for host in ("machine", "192.168.1.2")
    ]
    assert serve._links("127.0.0.2", 1, None) == ["http://127.0.0.2:1/"]
    assert serve._links("::1", 1, None) == ["http://[::1]:1/"]


def test_the_command_open_to_others_prints_a_secret_link_and_leaves_nothing(tmp_path: Path):
    command = [sys.executable, "-m", "skipsr", "serve", "--host", "0.0.0.0", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(tmp_path)
    ) as process:
        assert process.stdout is not None
        link = process.stdout.readline().split()[-1]
        port, token = re.fullmatch(r"http://[^:]+:(\d+)/\?token=(.+)", link).groups()  # type: ignore[union-attr]
        home = f"http://127.0.0.1:{port}"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{home}/", timeout=20)
        with httpx.Client(base_url=home, follow_redirects=True) as known:
            assert "<title>skipsr</title>" in known.get("/", params={"token": token}).text
        assert [path.name.startswith("skipsr-web-") for path in tmp_path.iterdir()] == [True]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, reason="hang-ups are ignored, as by nohup"
)
def test_a_server_whose_terminal_is_closed_ends_in_silence(tmp_path: Path):
    command = [sys.executable, "-m", "skipsr", "serve", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(tmp_path),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        home = process.stdout.readline().split()[-1]
        assert httpx.get(home).status_code == 200
        process.send_signal(signal.SIGHUP)
        try:
            assert process.communicate(timeout=20) == ("", "")
        finally:
            process.kill()
        assert process.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_is_told_in_a_sentence(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "skipsr", "serve", "--port", port],
            capture_output=True, text=True, timeout=60, env=environment(tmp_path),
        )  # fmt: skip
    assert done.returncode == 1
    assert f"--port {port}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_its_extra_the_command_says_what_to_install(tmp_path: Path):
    code = """
import sys
sys.modules["starlette"] = None
from skipsr.cli.main import main
main(["serve"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        'skipsr: error: the page needs more: pip install "skipsr[web]"'
    ]


def environment(temporary: Path) -> dict[str, str]:
    import os

    return os.environ | {"TMPDIR": str(temporary)}
