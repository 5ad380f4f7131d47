"""Shared fixtures: both clients under one name, certificates, and an environment without proxies.

Rule: a test that takes `api` runs twice, over httpx and over mcp_gangway, with the same assertions.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import httpx
import mcp_gangway
import pytest
import trustme

PACKAGE = Path(mcp_gangway.__file__).parent
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the environment's proxies: all test servers are on this machine."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(params=[httpx, mcp_gangway], ids=["httpx", "gangway"])
def api(request: pytest.FixtureRequest) -> ModuleType:
    """The module whose client is tested."""
    module: ModuleType = request.param
    return module


class Authority:
    """A certificate authority for the tests, and the files for clients."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self.path = folder / "authority.pem"
        self._authority.cert_pem.write_to_path(self.path)
        mine = self._authority.issue_cert("client@example.com")
        self.client_pem = folder / "client.pem"
        mine.private_key_and_cert_chain_pem.write_to_path(self.client_pem)
        self.client_key = folder / "client.key"
        mine.private_key_pem.write_to_path(self.client_key)
        self.client_certificate = folder / "client.crt"
        self.client_certificate.write_bytes(b"".join(blob.bytes() for blob in mine.cert_chain_pems))

    def server(self, *, asks_for_certificate: bool = False) -> ssl.SSLContext:
        """Returns the context of a server on 127.0.0.1."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
        if asks_for_certificate:
            self._authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def server_files(self) -> tuple[Path, Path]:
        """Returns the files of a server on 127.0.0.1: its certificate and its key."""
        theirs = self._authority.issue_cert("127.0.0.1")
        certificate, key = self.path.with_name("server.crt"), self.path.with_name("server.key")
        certificate.write_bytes(b"".join(blob.bytes() for blob in theirs.cert_chain_pems))
        theirs.private_key_pem.write_to_path(key)
        return certificate, key

    def client(self) -> ssl.SSLContext:
        """Returns the context of a client that trusts this authority."""
        return ssl.create_default_context(cafile=str(self.path))


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_python(tmp_path: Path) -> Run:
    """Runs a program in a new interpreter: `run_python(text, *options_of_python, input=...)`."""

    def run(
        program: str, *options: str, input: str | None = None, seconds: float = 50
    ) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "program.py"
        path.write_text(program)
        environment = dict(os.environ)
        paths = (str(PACKAGE.parent), str(Path(__file__).parent))
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        command = [sys.executable, *options, str(path)]
        return subprocess.run(
            command, input=input, capture_output=True, text=True, timeout=seconds, env=environment, check=False
        )

    return run
