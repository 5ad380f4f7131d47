"""A user with a browser: `browser.py URL FILE` opens the URL in Chromium, clicks the button on the page, and writes the
text of the next page into the file.

It controls Chromium by its DevTools protocol over a pipe, so it needs no library.
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
    """Opens the URL, clicks the button, and writes the resulting text."""
    # Processes of the killed browser may still write there.
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
    """A headless browser with one page."""

    def __init__(self, profile: str) -> None:
        its_input, self.output = os.pipe()
        self.input, its_output = os.pipe()

        def place() -> None:
            # Chromium expects the pipe at 3 and 4. Duplicate both ends first, so that neither overwrites the other.
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
        """Opens the page."""
        target = self.do("Target.createTarget", url=url)["targetId"]
        self.page = {"sessionId": self.do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}

    def do(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a command and returns its result."""
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
        """Waits until the expression has a value on the page, and returns it."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            result = self.do("Runtime.evaluate", expression=expression, returnByValue=True).get("result", {})
            if result.get("value") is not None and result.get("value") is not False:
                return result["value"]
            time.sleep(0.05)
        raise AssertionError(f"waited {LIMIT} s for {expression}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
