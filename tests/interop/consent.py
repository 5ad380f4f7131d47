"""A user who signs in: `consent.py URL` sends to `guarded.cjs` the requests of a browser whose user clicks."""

import re
import sys
import urllib.parse
import urllib.request

from servers import open_url

LIMIT = 20.0


def consent(url: str) -> None:
    """Opens the page, presses its button, and checks that the bridge's page reports success."""
    with open_url(urllib.request.Request(url), timeout=LIMIT) as page:
        (chosen,) = re.findall(r'name="id" value="(.+?)"', page.read().decode())
    form = urllib.parse.urlencode({"id": chosen}).encode()
    with open_url(urllib.request.Request(urllib.parse.urljoin(url, "/consent"), form), timeout=LIMIT) as page:
        assert "You are signed in" in page.read().decode()


if __name__ == "__main__":
    consent(sys.argv[1])
