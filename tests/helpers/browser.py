"""A headless Chromium that a test uses as a person would: it looks, clicks, types, picks files and has a camera.

It speaks the Chrome DevTools protocol over a pipe (https://chromedevtools.github.io/devtools-protocol), which needs no
driver program and no package. The camera is Chromium's own fake one, playing a file.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ANSWER_SEC = 120  # a machine with much else to do is slow
KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " ")}  # name: code, text
# Chromium reads commands from descriptor 3 and answers on 4.
_AS_3_AND_4 = "import os, sys; [os.dup2(int(sys.argv[i]), i + 2) for i in (1, 2)]; os.execv(sys.argv[3], sys.argv[3:])"
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
    "--use-fake-device-for-media-stream",
)  # fmt: skip


def write_camera_file(path: Path, frames: Iterable[np.ndarray], fps: int) -> None:
    """Frames, (height, width, 3) uint8 RGB, as the Y4M video that Chromium's fake camera repeats."""
    with path.open("wb") as file:
        for index, frame in enumerate(frames):
            height, width = frame.shape[:2]
            if index == 0:
                file.write(f"YUV4MPEG2 W{width} H{height} F{fps}:1\n".encode())
            file.write(b"FRAME\n" + cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420).tobytes())


class Browser:
    """One Chromium with one page; use in a `with`."""

    def __init__(self, profile: Path, camera_file: Path) -> None:
        import fcntl  # which Windows has not

        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (theirs_in, theirs_out)]  # out of the way of 3 and 4
        flags = [*_FLAGS, f"--user-data-dir={profile}", f"--use-file-for-fake-video-capture={camera_file}"]
        command = [sys.executable, "-c", _AS_3_AND_4, *map(str, theirs), CHROMIUM, *flags, "about:blank"]
        self._process = subprocess.Popen(command, pass_fds=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for fd in (theirs_in, theirs_out, *theirs):
            os.close(fd)
        self._writer, self._reader = os.fdopen(ours_out, "wb", 0), os.fdopen(ours_in, "rb", 0)
        self._received, self._number, self._session = b"", 0, None
        self.requests: list[str] = []  # addresses the page asked for
        pages = [t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        attached = self.send("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()  # Chromium ends with its pipe
        self._reader.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def send(self, method: str, **parameters: object) -> dict[str, object]:
        """One command; returns its result. What the page does meanwhile is noted."""
        self._number += 1
        number, session = self._number, self._session if method.split(".")[0] not in ("Target", "Browser") else None
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        self._writer.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _receive(self) -> dict[str, object]:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._reader], [], [], ANSWER_SEC)
            data = os.read(self._reader.fileno(), 1 << 20) if ready else b""
            assert data, f"Chromium does not answer in {ANSWER_SEC} s"
            self._received += data
        line, _, self._received = self._received.partition(b"\0")
        return json.loads(line)

    def open(self, address: str, width_px: int, height_px: int = 900) -> None:
        """Go to a page, in a window of this size."""
        is_phone = width_px < 600
        metrics = {"width": width_px, "height": height_px, "deviceScaleFactor": 1, "mobile": is_phone}
        self.send("Emulation.setDeviceMetricsOverride", **metrics)
        self.send("Page.navigate", url=address)

    def allow_camera(self, is_allowed: bool) -> None:
        """What the person answers when the browser asks."""
        setting = "granted" if is_allowed else "denied"
        self.send("Browser.setPermission", permission={"name": "camera"}, setting=setting)

    def ask(self, script: str) -> object:
        """The value of an expression in the page; promises are waited for."""
        result = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, f"{script}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def wait_for(self, script: str, timeout_sec: float = 45) -> object:
        """The value of an expression, once it is true."""
        end_sec = time.monotonic() + timeout_sec
        while not (value := self.ask(script)):
            assert time.monotonic() < end_sec, f"waited {timeout_sec} s for {script} in: {self.text()}"
            time.sleep(0.1)
        return value

    def text(self) -> str:
        """All that is to be read on the page."""
        return self.ask("document.body.innerText")

    def controls(self) -> list[tuple[str, str]]:
        """Role and name of all that a screen reader is told of."""
        nodes = self.send("Accessibility.getFullAXTree")["nodes"]
        told = [node for node in nodes if not node["ignored"]]
        return [(node["role"]["value"], node.get("name", {}).get("value", "").strip()) for node in told]

    def click(self, selector: str, text: str = "") -> None:
        """Press what is shown by a CSS selector and its text with the mouse, once it is there and stands still.

        Where the page moved it away under the mouse, press again, as a person would.
        """
        find = (
            f"[...document.querySelectorAll({selector!r})]"
            f".find((e) => e.innerText.includes({text!r}) && e.offsetParent && !e.disabled)"
        )
        place = f"""(() => {{
            const e = {find};
            e?.scrollIntoView({{block: 'center', behavior: 'instant'}});
            const r = e?.getBoundingClientRect(), place = r && [r.x + r.width / 2, r.y + r.height / 2];
            return place && (e.contains(document.elementFromPoint(...place)) ? place : null);
        }})()"""
        end_sec = time.monotonic() + 45
        while True:
            before = self.wait_for(place)
            while (now := self.wait_for(place)) != before:
                before = now
            self.ask(f"window.hit = false, {find}?.addEventListener('click', () => window.hit = true, true), 0")
            for kind in ("mousePressed", "mouseReleased"):
                self.send("Input.dispatchMouseEvent", type=kind, x=now[0], y=now[1], button="left", clickCount=1)
            if self.ask("window.hit"):
                return
            assert time.monotonic() < end_sec, f"{selector} with {text!r} is not to be pressed in: {self.text()}"

    def press(self, key: str) -> None:
        """A key on the keyboard."""
        code, text = KEYS[key]
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, text=text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def tab_to(self, selector: str, limit: int = 40) -> None:
        """Press Tab until this has the focus."""
        for _ in range(limit):
            if self.ask(f"!!document.activeElement?.matches({selector!r})"):
                return
            self.press("Tab")
        raise AssertionError(f"{selector} is not reached with the keyboard")

    def choose_file(self, selector: str, path: Path) -> None:
        """As if picked in the browser's dialogue."""
        self.wait_for(f"!!document.querySelector({selector!r})")
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def screenshot(self, path: Path) -> None:
        """The whole page, also what lies below the window, as PNG."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.send("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))
