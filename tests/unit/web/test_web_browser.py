"""The page in a real browser, against the real command."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from made_videos import make_video, ramp

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
FRAMES = 24
REFUSED = re.compile("status of 4(01|22)")
playwright.expect.set_options(timeout=20_000)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}"),
]
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the command serves, with a token as for others."""
    folder = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "skipsr", "serve", "--port", "0"]
    more = {"TMPDIR": str(folder), "SKIPSR_TOKEN": "a-token-for-tests"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | more
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def visit(browser: Any, link: str) -> Iterator[Open]:
    """Opens the page, again as another tab; fails for what the console or the network tell."""
    context = browser.new_context(viewport={"width": 1200, "height": 800}, accept_downloads=True)
    context.set_default_timeout(20_000)
    faults: list[str] = []
    home = link.partition("?")[0]

    def watch(page: Any) -> None:
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: line.type == "error" and not REFUSED.search(line.text)
                and faults.append(line.text))  # fmt: skip
        page.on("request", lambda request: request.url.startswith((home, "blob:"))
                or faults.append(request.url))  # fmt: skip

    context.on("page", watch)

    def open_page(address: str = link) -> Any:
        page = context.new_page()
        page.goto(address)
        playwright.expect(page.locator("#sample")).to_be_enabled()
        return page

    yield open_page
    context.pages[0].evaluate("""async () => {
        const { jobs } = await (await fetch("/api/jobs")).json();
        for (const { id } of jobs) await fetch(`/api/jobs/${id}`, { method: "DELETE" });
    }""")
    context.close()
    assert faults == []


@pytest.fixture(scope="module")
def brighter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frame i is grey of level 8 i + 8: pictures tell which frame they are."""
    return make_video(tmp_path_factory.mktemp("clips") / "brighter.mp4", ramp(FRAMES, 48, 64))


def expect_state(page: Any, text: str) -> None:
    playwright.expect(page.locator(".job .state").first).to_contain_text(text)


def expect_running(page: Any) -> None:
    playwright.expect(page.locator(".job[data-state=running]")).to_have_count(1)
    playwright.expect(page.get_by_role("progressbar")).to_be_visible()
    playwright.expect(page.get_by_role("button", name="Upscale")).to_be_disabled()


def expect_time(page: Any, text: str) -> None:
    playwright.expect(page.locator("#time")).to_contain_text(text)


def upscale(page: Any, path: Path) -> None:
    page.locator("#pick").set_input_files(path)
    page.get_by_role("spinbutton", name="Scale").fill("2")
    page.get_by_role("button", name="Upscale").click()
    expect_state(page, "done")
    expect_time(page, f"1 / {FRAMES}")


def frames(page: Any) -> list[int]:
    """Which frame the input shows, and which the result."""
    levels = page.evaluate("""() => ["before", "after"].map((side) => {
        const video = document.getElementById(`video-${side}`);
        const canvas = new OffscreenCanvas(1, 1);
        canvas.getContext("2d").drawImage(video, 0, 0, 1, 1);
        return canvas.getContext("2d").getImageData(0, 0, 1, 1).data[0];
    })""")
    return [round((level - 8) / 8) for level in levels]


def test_from_a_file_to_two_films_that_show_the_same_frame(visit: Open, brighter: Path):
    page = visit()
    upscale(page, brighter)
    assert page.evaluate("document.getElementById('video-before').videoWidth") == 128
    assert page.evaluate("document.getElementById('video-after').videoWidth") == 128
    page.locator("#stage").focus()
    for step in range(1, 6):
        page.keyboard.press(".")
        expect_time(page, f"{step + 1} / {FRAMES}")
    page.wait_for_function("() => !document.querySelector('#video-before').seeking"
                           " && !document.querySelector('#video-after').seeking")  # fmt: skip
    assert frames(page) == [5, 5]
    page.keyboard.press(",")
    expect_time(page, f"5 / {FRAMES}")
    page.keyboard.press(" ")
    playwright.expect(page.locator("#play")).to_have_attribute("aria-label", "Pause")
    page.wait_for_function("() => parseInt(document.querySelector('#time').textContent) > 9")
    page.keyboard.press(" ")
    page.wait_for_function("() => !document.querySelector('#video-before').seeking"
                           " && !document.querySelector('#video-after').seeking")  # fmt: skip
    page.wait_for_timeout(100)
    shown = int(page.locator("#time").inner_text().split()[0]) - 1
    assert frames(page) == [shown, shown]


def test_a_frame_that_comes_late_does_not_undo_a_step(visit: Open):
    frame = visit().evaluate("""async () => {
        const { Player } = await import("/page/player.js");
        const video = () => ({ seeking: true, paused: true, currentTime: 0, playbackRate: 1,
            pause() {}, addEventListener() {}, requestVideoFrameCallback() {} });
        const player = new Player(video(), video(), () => {}, () => {});
        player.times = [0, 1, 2, 3];
        player.seek(2);
        player.appeared(1);
        return player.frame;
    }""")
    assert frame == 2


def test_what_comes_late_of_one_result_is_not_shown_under_another(
    visit: Open, brighter: Path, tmp_path: Path
):
    page = visit()
    other = tmp_path / "other.mp4"
    other.write_bytes(brighter.read_bytes())
    upscale(page, brighter)
    late = page.url.partition("#")[2]
    page.locator("#pick").set_input_files(other)
    playwright.expect(page.locator(".job.chosen .name")).to_have_text(other.name)
    page.get_by_role("button", name="Upscale").click()
    expect_state(page, "done")
    held: list[Any] = []
    page.route(f"**/{late}/times*", lambda route: held.append(route))
    with page.expect_request(f"**/{late}/times*"):
        page.get_by_role("button", name=brighter.name, exact=True).click()
    page.get_by_role("button", name=other.name, exact=True).click()
    expect_time(page, f"1 / {FRAMES}")
    with page.expect_response(f"**/{late}/times*"):
        held[0].continue_()
    page.wait_for_timeout(300)
    assert late not in page.evaluate("document.getElementById('video-after').src")


def test_a_browser_that_decodes_nothing_before_it_plays_shows_the_first_frame(
    visit: Open, brighter: Path
):
    """As on iOS."""
    page = visit()
    page.context.add_init_script("""
        const withhold = (event) => event.stopImmediatePropagation();
        for (const name of ["loadeddata", "canplay", "canplaythrough"])
            addEventListener(name, withhold, true);
        const play = HTMLMediaElement.prototype.play;
        HTMLMediaElement.prototype.play = function () {
            this.dataset.played = "yes";
            return play.call(this);
        };
    """)
    page.reload()
    upscale(page, brighter)
    for side in ("before", "after"):
        playwright.expect(page.locator(f"#video-{side}[data-played]")).to_be_visible()
    page.wait_for_function("() => [...document.querySelectorAll('video')]"
                           ".every((video) => video.paused && !video.seeking)")  # fmt: skip
    assert frames(page) == [0, 0]


def test_the_size_that_is_told_is_the_size_that_is_made(visit: Open, tmp_path: Path):
    portrait = make_video(tmp_path / "portrait.mp4", ramp(FRAMES, 64, 46))
    page = visit()
    page.locator("#pick").set_input_files(portrait)
    page.get_by_role("spinbutton", name="Height").fill("70")
    playwright.expect(page.locator("#controls legend output")).to_have_text("50 × 70")  # 50.3
    page.get_by_role("spinbutton", name="Height").fill("98")
    playwright.expect(page.locator("#controls legend output")).to_have_text("70 × 98")  # 70.4
    page.get_by_role("spinbutton", name="Height").fill("88")
    playwright.expect(page.locator("#controls legend output")).to_have_text("64 × 88")  # 63.25
    page.get_by_role("button", name="Upscale").click()
    expect_state(page, "done")
    expect_time(page, f"1 / {FRAMES}")
    assert page.evaluate("document.getElementById('video-after').videoWidth") == 64


def test_the_divider_moves_by_mouse_and_by_keys(visit: Open, brighter: Path):
    page = visit()
    upscale(page, brighter)
    stage, divider = page.locator("#stage"), page.get_by_role("slider", name="Divider")
    box = stage.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, y, steps=3)
    page.mouse.up()
    playwright.expect(divider).to_have_attribute("aria-valuenow", "25")
    divider.focus()
    for key, value in {"ArrowRight": 26, "ArrowLeft": 25, "End": 100, "Home": 0}.items():
        page.keyboard.press(key)
        playwright.expect(divider).to_have_attribute("aria-valuenow", str(value))
    page.keyboard.press("m")
    playwright.expect(page.locator("#mask")).to_be_visible()
    page.locator("#zoom").select_option("4")
    assert page.locator("#content").bounding_box()["width"] == pytest.approx(512)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download", exact=True).click()
    assert download.value.suggested_filename == "brighter-128x96.mp4"


def test_the_mask_lies_on_pictures_of_pixels_that_are_not_square(visit: Open, tmp_path: Path):
    wide = make_video(tmp_path / "wide.mp4", ramp(FRAMES, 48, 64), aspect=Fraction(2))
    page = visit()
    upscale(page, wide)
    assert page.evaluate("document.getElementById('video-after').videoWidth") == 256
    page.locator("#show-mask").click()
    picture, mask = (page.locator(id).bounding_box() for id in ("#content", "#mask"))
    assert mask == pytest.approx(picture)


def test_a_job_goes_on_through_a_reload_and_is_cancelled_from_another_tab(visit: Open):
    page = visit()
    page.get_by_role("button", name="Use the sample clip").click()
    page.get_by_role("button", name="Upscale").click()
    expect_running(page)
    page.reload()
    expect_running(page)
    other = visit(page.url.partition("?")[0])
    expect_running(other)
    other.get_by_role("button", name="Cancel sample.mp4").click()
    for each in (page, other):
        expect_state(each, "cancelled")
        playwright.expect(each.get_by_role("button", name="Upscale")).to_be_enabled()


GREY = """id => {
  const canvas = document.createElement("canvas").getContext("2d");
  canvas.drawImage(document.getElementById(id), 0, 0);
  return canvas.getImageData(20, 20, 1, 1).data[0];
}"""


def test_one_frame_is_tried_before_the_whole(visit: Open, brighter: Path):
    page = visit()
    page.locator("#pick").set_input_files(brighter)
    frame = page.get_by_role("spinbutton", name="Frame")
    poster = FRAMES // 2
    playwright.expect(page.locator("#told")).to_contain_text(f"frame {poster + 1} of {FRAMES}")
    playwright.expect(frame).to_have_value(str(poster + 1))
    playwright.expect(page.locator("#image-before")).to_be_visible()
    assert page.evaluate(GREY, "image-before") == pytest.approx(8 * poster + 8, abs=4)
    frame.fill("3")
    page.get_by_role("button", name="Preview this frame").click()
    expect_state(page, "preview ready")
    playwright.expect(page.locator("#told")).to_contain_text("Preview of frame 3")
    playwright.expect(page.locator("#image-after")).to_be_visible()
    assert page.evaluate("document.getElementById('image-after').naturalWidth") == 256
    assert page.evaluate(GREY, "image-after") == pytest.approx(8 * 2 + 8, abs=4)


def test_a_click_on_the_empty_stage_asks_for_files(visit: Open):
    page = visit()
    with page.expect_file_chooser() as asked:
        page.get_by_text("click to choose one").locator("..").click()
    assert asked.value.is_multiple()


def test_what_is_refused_is_told_where_it_was_chosen(visit: Open, tmp_path: Path):
    page = visit()
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    page.locator("#pick").set_input_files(tmp_path / "list.m3u8")
    playwright.expect(page.get_by_role("alert")).to_contain_text("list.m3u8 is not a video")
    playwright.expect(page.locator(".job")).to_have_count(0)


def test_a_page_without_the_token_says_what_to_do_and_goes_on_with_it(visit: Open, link: str):
    """As after a restart, which makes a new one."""
    page = visit()
    connection = page.locator("#connection")
    page.context.clear_cookies()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # it connects anew
    playwright.expect(connection).to_contain_text("Open the link that the server printed")
    visit(link)
    playwright.expect(connection).to_be_empty()


def test_without_events_the_page_asks_again_and_again(visit: Open, browser: Any, link: str):
    page = visit()
    page.context.add_init_script("delete window.EventSource")
    page.reload()
    page.get_by_role("button", name="Use the sample clip").click()
    expect_state(page, "ready")


def test_of_several_files_all_refusals_are_told_and_the_first_good_one_is_chosen(
    visit: Open, brighter: Path, tmp_path: Path
):
    page = visit()
    files = [tmp_path / name for name in ("bad.mp4", "first.mp4", "worse.mp4", "second.mp4")]
    for file in files:
        good = file.name in ("first.mp4", "second.mp4")
        file.write_bytes(brighter.read_bytes() if good else b"this is no video\n" * 50)
    page.locator("#pick").set_input_files(files)
    playwright.expect(page.locator("#jobs .job")).to_have_count(2)
    playwright.expect(page.locator("#uploads .job")).to_have_count(0)
    for refused in ("bad.mp4 is not a video", "worse.mp4 is not a video"):
        playwright.expect(page.get_by_role("alert")).to_contain_text(refused)
    playwright.expect(page.locator(".job.chosen .name")).to_have_text("first.mp4")
