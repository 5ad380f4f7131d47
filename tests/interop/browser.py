"""A user with a browser: `browser.py URL FILE` opens the URL in Chromium, clicks the button that it finds on the page, and
writes what the page says that the click leads to into the file.

Chromium is steered by its DevTools protocol over a pipe, so that no library is needed.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LIMIT = 20.0
BUTTON = """(() => {
  const box = document.querySelector("button")?.getBoundingClientRect();
  return box ? [box.x + box.width / 2, box.y + box.height / 2] : null;
})()"""
TEXT = 'document.readyState === "complete" && !document.querySelector("button") ? document.body.innerText : null'


def main(url: str, said: Path) -> None:
    """Do what the module says."""
    # Processes of a browser that was ended may still write there.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, Chromium(profile) as browser:
        browser.open(url)
        x, y = browser.wait_for(BUTTON)
        for kind in ("mousePressed", "mouseReleased"):
            browser.do("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        text = browser.wait_for(TEXT)
    part = said.with_suffix(".part")
    part.write_text(text)
    part.rename(said)


class Chromium:
    """A browser without a window, with one page."""

    def __init__(self, profile: str) -> None:
        its_input, self.output = os.pipe()
        self.input, its_output = os.pipe()

        def place() -> None:
            # Where it expects the pipe; first out of the way of each other.
            ends = (os.dup(its_input), os.dup(its_output))
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
        command = ["chromium", *options, f"--user-data-dir={profile}", "about:blank"]
        quiet = subprocess.DEVNULL
        self.running = subprocess.Popen(
            command, stdin=quiet, stdout=quiet, stderr=quiet, close_fds=False, preexec_fn=place
        )
        os.close(its_input)
        os.close(its_output)
        self.unread = b""
        self.count = 0
        self.page: dict[str, str] = {}

    def __enter__(self) -> "Chromium":
        return self

    def __exit__(self, *_: object) -> None:
        self.running.kill()
        self.running.wait()

    def open(self, url: str) -> None:
        """Open the page."""
        target = self.do("Target.createTarget", url=url)["targetId"]
        self.page = {"sessionId": self.do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}

    def do(self, method: str, **params: Any) -> dict[str, Any]:
        """Have it do something; return what comes of it."""
        self.count += 1
        command = {"id": self.count, "method": method, "params": params, **self.page}
        os.write(self.output, json.dumps(command).encode() + b"\0")
        while True:
            while b"\0" not in self.unread:
                read = os.read(self.input, 65536)
                assert read, "the browser is gone"
                self.unread += read
            line, _, self.unread = self.unread.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == self.count:
                return answer.get("result", {})

    def wait_for(self, expression: str) -> Any:
        """What this comes to on the page, once it comes to something."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            result = self.do("Runtime.evaluate", expression=expression, returnByValue=True).get("result", {})
            if result.get("value") is not None and result.get("value") is not False:
                return result["value"]
            time.sleep(0.05)
        raise AssertionError(f"waited {LIMIT} s for {expression}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
