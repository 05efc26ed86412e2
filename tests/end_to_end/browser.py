"""A real browser without a window, driven over its debugging protocol: what a page shows after it has loaded."""

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_QUIET = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]


class Browser:
    """Chromium with one page."""

    def __init__(self, folder: Path):
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-sync",
            *_QUIET,
            f"--user-data-dir={folder}",
        ]
        self._process = subprocess.Popen(
            [CHROMIUM, *options, "--remote-debugging-port=0", "--window-size=1600,1200", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port = _wait(lambda: (folder / "DevToolsActivePort").read_text().splitlines()[0])
        pages = _wait(lambda: json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list")))
        address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        self._loop = asyncio.new_event_loop()
        self._session, self._page = self._loop.run_until_complete(_connect(address))
        self._numbers = itertools.count(1)

    def close(self):
        self._loop.run_until_complete(self._session.close())
        self._loop.close()
        self._process.kill()
        self._process.wait()

    def call(self, method, **params):
        """One command of the protocol; its result, empty if it failed, as on a page that is about to change."""
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, params), 60))

    async def _call(self, method, params):
        number = next(self._numbers)
        await self._page.send_json({"id": number, "method": method, "params": params})
        while True:
            answer = await self._page.receive_json()
            if answer.get("id") == number:
                return answer.get("result", {})

    def open(self, address):
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)

    def evaluate(self, script):
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        return answer.get("result", {}).get("value")

    @property
    def text(self):
        return self.evaluate("document.body ? document.body.innerText : ''") or ""

    def wait_for(self, condition, seconds=60):
        """Until a script gives something true; its value. Raises AssertionError with the page's text."""
        for _ in range(seconds * 5):
            if value := self.evaluate(condition):
                return value
            time.sleep(0.2)
        raise AssertionError(f"{condition} never came true; the page shows:\n{self.text}")

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


async def _connect(address):
    session = aiohttp.ClientSession()
    return session, await session.ws_connect(address, max_msg_size=0)


def _wait(look):
    for _ in range(300):
        try:
            return look()
        except (OSError, IndexError):
            time.sleep(0.1)
    raise AssertionError("the browser did not start")
