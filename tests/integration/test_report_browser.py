"""Tests the report in headless Chromium: it renders, makes no requests, logs nothing, fits a phone, prints."""

import base64
import fcntl
import json
import os
import random
import shutil
import subprocess

import pytest

from verl_relift.report.__main__ import main

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")

HOSTILE = "<script>document.title='owned'</script><img src=http://example.invalid/x onerror=alert(1)>"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)


class Browser:
    """Drives Chromium over its debugging pipe: JSON messages that end with a zero byte, on descriptors 3 and 4."""

    def __init__(self, profile):
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        # Chromium expects its ends as 3 and 4. The shell moves them there from numbers that do not collide.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_read, to_write)]
        os.close(to_read)
        os.close(to_write)
        command = f'exec "$0" "$@" 3<&{ends[0]} 4>&{ends[1]}'
        self._process = subprocess.Popen(
            ["bash", "-c", command, CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=ends,
            stderr=subprocess.DEVNULL,
        )
        for end in ends:
            os.close(end)
        self._buffer, self._number, self.events = b"", 0, []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = None
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Send a command and return its result; keep events that arrive in between."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if getattr(self, "_session", None):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, address, width, height):
        """Open a page in a window of the given size and wait until it has loaded."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.call("Page.navigate", url=address)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())

    def evaluate(self, expression):
        """Return the value of an expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"]["value"]

    def of(self, method):
        """Return the events of one kind since the page was opened."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def close(self):
        self._session = None
        self.call("Browser.close")
        self._process.wait(timeout=30)
        os.close(self._read)
        os.close(self._write)

    def _receive(self):
        while b"\0" not in self._buffer:
            received = os.read(self._read, 1 << 20)
            assert received, "Chromium has ended"
            self._buffer += received
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def write_run(folder, updates):
    folder.mkdir()
    rng = random.Random(folder.name)
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, 61):
            line = {
                "step": step,
                "time": 10.0 * step,
                "critic/score/mean": min(1.0, 0.3 + step / 100 + 0.1 * rng.random()),
                "relift/hardest_fraction": 0.4 * (1 - step / 60),
                "relift/sft_updates": step // 6 if updates else 0,
                "actor/grad_norm": None if step == 30 else rng.random() + 0.1,
                "timing_s/gen": 1.0,
                "timing_s/update_actor": 1.0,
                "timing_s/update_actor_sft": 0.5 if updates and step % 6 == 0 else 0.0,
                "timing_s/step": 3.0,
            }
            if step % 20 == 0:
                line |= {f"val-core/{HOSTILE}/acc/mean@1": step / 60, "val-core/math/acc/mean@1": step / 80}
            file.write(json.dumps(line) + "\n")
    (folder / "config.yaml").write_text(
        "method: {name: relift, sft: {batch_size: 16}}\ndata: {name: " + "very_long_" * 60 + "}\n"
    )
    (folder / "validation").mkdir()
    for step in (20, 60):
        row = {"input": HOSTILE, "output": HOSTILE + "x" * 3000, "gts": "2", "score": step / 60, "step": step}
        (folder / "validation" / f"{step}.jsonl").write_text(json.dumps(row) + "\n")
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    runs = [f"{name}={write_run(folder / name, updates)}" for name, updates in (("ReLIFT", True), ("RL", False))]
    main([*runs, "--output", str(folder / "report.html")])
    return folder / "report.html"


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 900)], ids=["phone", "desk"])
def test_the_page_renders_quietly_and_fits(browser, page, width, height):
    browser.open(page.as_uri(), width, height)
    assert browser.of("Log.entryAdded") == [] and browser.of("Runtime.consoleAPICalled") == []
    assert browser.of("Runtime.exceptionThrown") == [] and browser.of("Page.javascriptDialogOpening") == []
    requested = [event["request"]["url"] for event in browser.of("Network.requestWillBeSent")]
    assert all(url.startswith("data:") or url == page.as_uri() for url in requested), requested
    assert browser.evaluate("document.title") == "ReLIFT and RL"
    images = browser.evaluate("[...document.images].map(i => [i.complete && i.naturalWidth, i.clientWidth, i.alt])")
    assert len(images) >= 8
    assert all(natural > 0 and 200 < shown <= width and alt for natural, shown, alt in images), images
    assert browser.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    assert browser.evaluate("document.scripts.length") == 0
    assert browser.evaluate("document.body.innerText").count("onerror=alert(1)") >= 4


def test_a_chart_has_ink_in_it(browser, page, tmp_path):
    from matplotlib import image

    browser.open(page.as_uri(), 1280, 900)
    box = browser.evaluate("(r => [r.x, r.y + scrollY, r.width, r.height])(document.images[0].getBoundingClientRect())")
    clip = dict(zip(("x", "y", "width", "height"), box, strict=True), scale=1)
    shot = browser.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
    (tmp_path / "chart.png").write_bytes(base64.b64decode(shot))
    pixels = image.imread(tmp_path / "chart.png")[..., :3]
    dark = (pixels.mean(-1) < 0.9).mean()
    blue = ((pixels[..., 2] - pixels[..., 0]) > 0.3).mean()
    assert 0.005 < dark < 0.5 and blue > 0.001, "axes, and a curve in the first run's color"


def test_the_page_prints(browser, page):
    browser.open(page.as_uri(), 1280, 900)
    pdf = base64.b64decode(browser.call("Page.printToPDF", printBackground=True)["data"])
    assert pdf.startswith(b"%PDF") and pdf.count(b"/Type /Page\n") + pdf.count(b"/Type/Page/") >= 2
