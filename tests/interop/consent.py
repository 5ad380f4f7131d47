"""A user who signs in: `consent.py URL` does at `guarded.cjs` what a browser would in which somebody clicks."""

import re
import sys
import urllib.parse
import urllib.request

from servers import open_url

LIMIT = 20.0


def consent(url: str) -> None:
    """Open the page, press its button, and see that the bridge's page says that it is done."""
    with open_url(urllib.request.Request(url), timeout=LIMIT) as page:
        (chosen,) = re.findall(r'name="id" value="(.+?)"', page.read().decode())
    form = urllib.parse.urlencode({"id": chosen}).encode()
    with open_url(urllib.request.Request(urllib.parse.urljoin(url, "/consent"), form), timeout=LIMIT) as page:
        assert "You are signed in" in page.read().decode()


if __name__ == "__main__":
    consent(sys.argv[1])
