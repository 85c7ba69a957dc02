"""A real headless Chromium, for pages that the project writes."""

from __future__ import annotations

import base64
import json
import os
import shutil
import time

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--window-size=1200,900",
)


def chromium() -> str | None:
    """The program, or None where there is none."""
    return (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )


class Browser:
    """A page in headless Chromium, in real time, spoken to through two pipes (Chrome DevTools
    Protocol)."""

    def __init__(self, chromium, page, profile, flags=()):
        """`page` is a file or an address; `flags` are further ones of the program."""
        there_in, self._out = os.pipe()
        self._in, there_out = os.pipe()
        argv = [
            chromium,
            *FLAGS,
            *flags,
            f"--user-data-dir={profile}",
            "--autoplay-policy=no-user-gesture-required",
            "--remote-debugging-pipe",
        ]
        spots = [
            (os.POSIX_SPAWN_DUP2, there_in, 3),
            (os.POSIX_SPAWN_DUP2, there_out, 4),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ]
        self._pid = os.posix_spawn(chromium, argv, os.environ, file_actions=spots)
        os.close(there_in)
        os.close(there_out)
        self._sent, self._session = 0, {}
        address = page if isinstance(page, str) else page.as_uri()
        target = self._ask("Target.createTarget", url=address)["targetId"]
        self._session = {
            "sessionId": self._ask("Target.attachToTarget", targetId=target, flatten=True)[
                "sessionId"
            ]
        }
        there = f"{address.partition(':')[0]}:complete"
        while self.evaluate("location.protocol + document.readyState") != there:
            time.sleep(0.05)

    def evaluate(self, script):
        """The value that the promise `script` gives."""
        answer = self._ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key):
        """A real key, as a keyboard gives it to whatever has the focus: its name in
        `KeyboardEvent.key`, such as "Tab"."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowRight": 39}.get(
            key, ord(key[0].upper())
        )
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        self._ask(
            "Input.dispatchKeyEvent", type="keyDown", key=key, text=text, windowsVirtualKeyCode=code
        )
        self._ask("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def click(self, x, y):
        """The left button of a real mouse, at css px of the window."""
        where = {"x": x, "y": y, "button": "left", "clickCount": 1}
        self._ask("Input.dispatchMouseEvent", type="mousePressed", **where)
        self._ask("Input.dispatchMouseEvent", type="mouseReleased", **where)

    def screenshot(self, file, width=1200, height=900, dark=False):
        """A png of the window, at that size and in that scheme."""
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])
        time.sleep(0.3)
        data = self._ask("Page.captureScreenshot", format="png")["data"]
        file.write_bytes(base64.b64decode(data))

    def close(self):
        self._session = {}
        self._ask("Browser.close")
        os.waitpid(self._pid, 0)
        os.close(self._out)
        os.close(self._in)

    def _ask(self, method, **params):
        self._sent += 1
        os.write(
            self._out,
            json.dumps(
                {"id": self._sent, "method": method, "params": params, **self._session}
            ).encode()
            + b"\0",
        )
        while True:
            answer = json.loads(b"".join(iter(lambda: os.read(self._in, 1), b"\0")))
            if answer.get("id") == self._sent:
                return answer["result"]


def evaluate_with(helpers: str, browser: Browser, script: str):
    """The value that a script returns which may use the helpers, and may wait."""
    return browser.evaluate(f"(async () => {{ {helpers} {script} }})()")
