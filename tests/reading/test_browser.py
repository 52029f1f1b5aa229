"""A scripted reader in a real browser: finishes a study, comes back, tampers and is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gyri.reading.ledger import Ledger

sync = pytest.importorskip("playwright.sync_api")
pytest.importorskip("fastapi")
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
"""WebGL2 without a graphics card."""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]


@pytest.fixture
def browser() -> Iterator[sync.Browser]:
    with sync.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def serve() -> Iterator:
    """Run a verb that serves; returns the links that it prints."""
    running = []

    def start(*arguments: str) -> list[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "gyri", *arguments, "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        lines = []
        while (line := process.stdout.readline()) and not line.startswith("Stop"):
            lines.append(line.split(": ", 1)[1].strip())
        assert lines, "the server did not start"
        return lines

    yield start
    for process in running:
        process.terminate()
        process.wait(20)
        process.stdout.close()


def watched(browser) -> tuple[sync.Page, list[str], list[str]]:
    """Return a page, and what it asks of others and what goes wrong on it."""
    page = browser.new_page(viewport={"width": 1000, "height": 640})
    outside, wrong = [], []
    page.set_default_timeout(120_000)
    page.on(
        "request",
        lambda r: (
            None
            if r.url.startswith(("http://127.0.0.1", "data:", "blob:"))
            else outside.append(r.url)
        ),
    )
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    return page, outside, wrong


def trial_of(page) -> str:
    return page.evaluate("document.body.dataset.trial || ''")


def answer(page) -> None:
    """Scroll a little, answer by keys, and wait for what follows."""
    before, block = trial_of(page), page.evaluate("document.body.dataset.block")
    for key in ("ArrowUp", "PageDown", "=", "]"):
        page.keyboard.press(key)
    if block == "ratings":
        for key in "43254":
            page.keyboard.press(key)
        page.locator(".faults input").nth(1).check()
        page.locator("canvas").click(position={"x": 120, "y": 120})
        page.locator(".faults li").nth(1).locator("button").click()
    else:
        page.keyboard.press("2")
        page.keyboard.press("1")
    page.locator("button.main:visible").click()
    page.wait_for_function(
        "before => document.body.dataset.stage === 'done' "
        "|| document.body.dataset.trial !== before || !document.getElementById('sheet').hidden",
        arg=before,
    )
    go_on(page)


def go_on(page) -> None:
    """Read the introduction of a block, where there is one, and wait for the first volume."""
    if page.evaluate("document.body.dataset.stage") == "trial" and page.is_visible("#sheet"):
        before = trial_of(page)
        page.click("#sheet button.main")
        page.wait_for_function("before => document.body.dataset.trial !== before", arg=before)


def drawn_grey(page) -> float:
    """Return the share of the first canvas's pixels that are not black."""
    return page.evaluate(
        """() => new Promise(done => requestAnimationFrame(() => {
        viewers[0].nv.drawScene();
        const gl = viewers[0].nv.gl, n = gl.drawingBufferWidth * gl.drawingBufferHeight;
        const p = new Uint8Array(4 * n);
        gl.readPixels(0, 0, gl.drawingBufferWidth, gl.drawingBufferHeight, gl.RGBA,
          gl.UNSIGNED_BYTE, p);
        let grey = 0; for (let i = 0; i < n; i++) grey += p[4 * i] > 40; done(grey / n); }))"""
    )


def test_a_scripted_reader_finishes_and_tampering_is_refused(study, browser, serve):
    link = serve("read", "serve", str(study))[0]
    page, outside, wrong = watched(browser)
    page.goto(link)
    page.check("#agree")
    page.click("button.main")
    page.wait_for_selector("text=Part 1 of 3")
    assert "#" not in page.url  # the token has left the address bar
    go_on(page)
    assert drawn_grey(page) > 0.05
    for _ in range(6):
        answer(page)
    waiting = trial_of(page)
    page.context.close()

    # comes back, in a browser that remembers nothing
    page, more_outside, wrong = watched(browser)
    page.goto(link)
    page.wait_for_selector("text=Part 1 of 3")
    go_on(page)
    assert trial_of(page) == waiting

    # tampers: another case, a replayed answer, a forged cookie
    post = """async body => (await fetch('/api/answer', {method: 'POST', headers:
              {'Content-Type': 'application/json'}, body: JSON.stringify(body)})).status"""
    assert page.evaluate("fetch('/api/case/' + '0'.repeat(32) + '.nii').then(r => r.status)") == 404
    forged = {"trial": "f" * 32, "shown_ms": 1, "choice": "real"}
    assert page.evaluate(post, forged) == 404
    while page.evaluate("document.body.dataset.stage") != "done":
        answer(page)
    assert page.evaluate(post, {**forged, "trial": waiting}) == 409
    receipt = page.inner_text("#receipt")
    cookies = page.context.cookies()
    assert cookies[0]["httpOnly"]
    assert cookies[0]["sameSite"] == "Strict"
    page.context.add_cookies([{**cookies[0], "value": "forged"}])
    assert page.evaluate("fetch('/api/state').then(r => r.status)") == 401
    page.reload()
    page.wait_for_selector("#token")

    ledger = Ledger(study / "sealed.sqlite")
    reasons = [
        json.loads(row["detail"])["reason"]
        for row in ledger.rows("SELECT detail FROM log WHERE event = 'refused'")
    ]
    assert reasons[:3] == ["no such case", "no such trial", "answered before"]
    assert set(reasons[3:]) == {"forged or ended session"}
    assert receipt in [row["hash"] for row in ledger.rows("SELECT hash FROM log")]
    record = json.loads((study / "gyri-reading.json").read_text())
    assert ledger.verify(record["seal"]) == []
    answers = [json.loads(row["answer"]) for row in ledger.rows("SELECT answer FROM answers")]
    assert len(answers) == 20
    rated = [a for a in answers if "grades" in a]
    assert rated[0]["grades"] == {
        "anatomy": 4,
        "contrast": 3,
        "noise": 2,
        "artefacts": 5,
        "acceptability": 4,
    }
    assert len(rated[0]["faults"][0]["place"]) == 3
    assert all(0 < a["shown_ms"] < 600_000 for a in answers)
    assert outside == more_outside == []
    assert not [text for text in wrong if "Content Security Policy" in text]


def test_a_browser_without_webgl2_says_what_to_do(study, browser, serve):
    page, _, _ = watched(browser)
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null;")
    page.goto(serve("read", "serve", str(study))[0])
    page.wait_for_selector("#banner:visible")
    assert "WebGL2" in page.inner_text("#banner")
    assert "hardware acceleration" in page.inner_text("#banner")


def test_the_viewer_filters_and_shows_the_nearest(cohort, samples, browser, serve):
    page, outside, wrong = watched(browser)
    page.goto(serve("view", str(samples), "--beside", str(cohort))[0])
    page.wait_for_selector("body[data-row='0']")
    assert page.locator("#cases button").count() == 48
    page.select_option("select[name=sex]", "F")
    page.fill("input[name='age.from']", "40")
    kept = page.locator("#cases button").all_inner_texts()
    assert 0 < len(kept) < 24
    assert all(" F" in text or "F ·" in text or "· F" in text for text in kept)
    before = page.evaluate("document.body.dataset.row")
    page.keyboard.press("Tab")
    page.locator("canvas").first.click()
    page.keyboard.press("n")
    page.wait_for_function("before => document.body.dataset.row !== before", arg=before)
    assert "r = " in page.locator("figcaption").nth(1).inner_text()
    assert drawn_grey(page) > 0.05
    assert outside == []
    assert wrong == []
