"""A headless Chromium that is told what to do through a pipe: the DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/; messages are JSON, each with a zero byte after.
"""

import contextlib
import json
import os
import select
import shutil
import subprocess
import time

CHROMIUM = next(filter(None, map(shutil.which, (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None)
_SECONDS = 120  # on a busy machine


class Browser:
    """One page of a browser.

    Parameters
    ----------
    profile : path
        A folder for it.

    Attributes
    ----------
    errors : list of str
        What went wrong in the page's scripts, and what could not be loaded or was warned of.
    """

    def __init__(self, profile):
        self.errors = []
        reading, self._out = os.pipe()
        self._in, writing = os.pipe()
        # The browser reads from descriptor 3 and writes to 4.
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{reading} 4>&{writing}', CHROMIUM, "--headless",
             "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--hide-scrollbars", f"--user-data-dir={profile}", "--remote-debugging-pipe"],
            pass_fds=(reading, writing), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(reading)
        os.close(writing)
        self._rest, self._last, self._number, self._session = b"", {}, 0, None
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask(
            "Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")

    def close(self):
        with contextlib.suppress(OSError):
            self._ask("Browser.close")
        os.close(self._in)
        os.close(self._out)
        self._process.wait(_SECONDS)

    def open(self, path, *, width, dark):
        """Show a file in a window of a width, in light or dark colours."""
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=900,
                  deviceScaleFactor=1, mobile=width < 600)
        self._ask("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self._loaded = False
        self._ask("Page.navigate", url=path.as_uri())
        self._until(lambda: self._loaded)

    def evaluate(self, script):
        """The value of an expression of JavaScript."""
        answer = self._ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key):
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            self._ask("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                      windowsVirtualKeyCode={"Tab": 9}[key])

    def _ask(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        self._until(lambda: self._last.get("id") == self._number)
        assert "error" not in self._last, self._last
        return self._last["result"]

    def _until(self, reached):
        end = time.monotonic() + _SECONDS
        while not reached():
            while b"\0" not in self._rest:
                ready, _, _ = select.select([self._in], [], [], max(0, end - time.monotonic()))
                if not ready or not (piece := os.read(self._in, 1 << 20)):
                    raise OSError("the browser does not answer")
                self._rest += piece
            text, _, self._rest = self._rest.partition(b"\0")
            self._last = json.loads(text)
            self._note(self._last.get("method"), self._last.get("params"))

    def _note(self, method, parameters):
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(parameters["exceptionDetails"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.errors.append(parameters["entry"]["text"])
