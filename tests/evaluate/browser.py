"""A headless Chromium that tests steer over the DevTools protocol's pipe, without a library."""

import base64
import io
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 60  # seconds that an answer or a condition may take on a busy machine


class Browser:
    """One page of a browser, with what it said on its console."""

    def __init__(self, profile: Path):
        """Start the browser; its profile, an empty folder, is where it keeps its files."""
        self._number, self._session, self.errors = 0, None, []
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        flags = (
            "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run "
            "--disable-extensions --disable-background-networking --hide-scrollbars "
            f"--remote-debugging-pipe --user-data-dir={profile}"
        )
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" {flags} 3<&{theirs_in} 4>&{theirs_out}', CHROMIUM],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._rest = b""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _next(self) -> dict:
        while b"\0" not in self._rest:
            part = os.read(self._from, 1 << 20)
            assert part, "the browser is gone"
            self._rest += part
        one, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(one)
        event, told = message.get("method"), message.get("params", {})
        if event == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(told["exceptionDetails"])[:500])
        elif event == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning"):
            self.errors.append(json.dumps(told["args"])[:500])
        elif event == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.errors.append(told["entry"]["text"])
        return message

    def open(self, path: Path, width: int = 1200, height: int = 800, phone: bool = False) -> None:
        """Open a file at a window's size and wait until it has loaded."""
        self.errors.clear()
        scale = 2 if phone else 1
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def run(self, script: str) -> object:
        """Return the value of an expression in the page; a promise's when it is kept."""
        options = {"awaitPromise": True, "returnByValue": True}
        answer = self.call("Runtime.evaluate", expression=script, **options)
        assert "exceptionDetails" not in answer, f"{script}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.run(condition):
            assert time.monotonic() < end, f"still not: {condition}"
            time.sleep(0.02)

    def mouse(self, kind: str, x: float, y: float, **more: object) -> None:
        """Send a mouse event: moved, pressed or released."""
        told = {"type": f"mouse{kind.capitalize()}", "x": x, "y": y} | more
        if kind != "moved":
            told |= {"button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", **told)

    def click(self, selector: str) -> None:
        """Click in the middle of an element."""
        x, y = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'nearest'}); const b = e.getBoundingClientRect(); "
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        self.mouse("pressed", x, y)
        self.mouse("released", x, y)

    def key(self, key: str, code: int) -> None:
        """Press and release a key, by its name and its virtual key code."""
        text = {"text": key} if len(key) == 1 else {}
        named = {"key": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **named, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def picture(self, whole: bool = False) -> np.ndarray:
        """Return what the window shows, or the whole page, (H, W, 3) uint8."""
        self.run("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            return np.asarray(image.convert("RGB"))

    def close(self) -> None:
        """End the browser."""
        os.close(self._to)
        self._process.wait(PATIENCE)
        os.close(self._from)
