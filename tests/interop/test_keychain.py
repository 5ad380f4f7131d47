"""Sign-ins are stored in the keychain if there is one: GNOME's, on its own bus."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from consent import consent
from servers import Server, plain_environment

LIMIT = 20.0
PASSWORD = b"interop"
SECRETS = ["org.freedesktop.secrets", "/org/freedesktop/secrets"]

needs_bus = pytest.mark.skipif(not shutil.which("dbus-daemon"), reason="needs D-Bus: install dbus-daemon and dbus-bin")
needs_keyring = pytest.mark.skipif(
    not (shutil.which("dbus-daemon") and shutil.which("dbus-send") and shutil.which("gnome-keyring-daemon")),
    reason="needs GNOME's keychain: install gnome-keyring, dbus-daemon and dbus-bin",
)


@dataclass
class User:
    """A user with a home, on a bus, and the bridge's binary."""

    binary: str
    server: Server
    home: Path
    bus: str

    @property
    def environment(self) -> dict[str, str]:
        """Returns the user's variables."""
        folders = {"HOME": str(self.home), "XDG_STATE_HOME": f"{self.home}/state", "XDG_RUNTIME_DIR": str(self.home)}
        return plain_environment() | folders | {"DBUS_SESSION_BUS_ADDRESS": self.bus}

    def do(self, command: str, *args: str) -> subprocess.CompletedProcess[str]:
        """Runs a command of the bridge."""
        line = [self.binary, command, "--log-level", "info", *args, self.server.url]
        return subprocess.run(line, env=self.environment, capture_output=True, text=True, timeout=LIMIT)

    def sign_in(self, *args: str) -> str:
        """Runs `login`, with the user's consent. Returns the log."""
        line = [self.binary, "login", "--no-browser", "--log-level", "info", *args, self.server.url]
        with subprocess.Popen(
            line, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as login:
            log = ""
            for text in login.stderr:
                log += text
                if " asks you to sign in: " in text:
                    consent(text.split(" asks you to sign in: ")[1].strip())
            assert login.wait(LIMIT) == 0, log
        return log

    def call(self) -> tuple[str, str]:
        """Returns the server's name for the bridge's token, and the bridge's log."""
        line = [self.binary, "--no-browser", "--log-level", "info", self.server.url]
        request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "whoami", "arguments": {}}}
        text = json.dumps(request) + "\n"
        done = subprocess.run(line, env=self.environment, input=text, capture_output=True, text=True, timeout=LIMIT)
        return json.loads(done.stdout)["result"]["content"][0]["text"], done.stderr

    def files(self) -> list[Path]:
        """Returns the files with records."""
        return sorted((self.home / "state").rglob("*.json"))

    def start_keyring(self) -> None:
        """Starts the keychain, unlocked. Replaces a running one."""
        line = ["gnome-keyring-daemon", "--replace", "--unlock", "--components=secrets"]
        subprocess.run(line, env=self.environment, input=PASSWORD, check=True, timeout=LIMIT, stdout=subprocess.DEVNULL)

    def lock_keyring(self) -> None:
        """Locks the keychain."""
        self.ask_bus("org.freedesktop.Secret.Service.Lock", f"array:objpath:{SECRETS[1]}/collection/login")

    def ask_bus(self, method: str, *args: str) -> None:
        """Calls a method of the keychain."""
        line = ["dbus-send", "--session", "--print-reply", f"--dest={SECRETS[0]}", SECRETS[1], method, *args]
        subprocess.run(line, env=self.environment, check=True, timeout=LIMIT, stdout=subprocess.DEVNULL)


@pytest.fixture
def user(binary: str, running: Any, tmp_path: Path) -> Iterator[User]:
    """A user on a bus without services."""
    user = User(binary, running["guarded"], tmp_path, f"unix:path={tmp_path}/bus")
    configuration = tmp_path / "bus.conf"
    rules = '<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>'
    configuration.write_text(
        '<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"\n'
        ' "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">\n'
        f"<busconfig><type>session</type><listen>{user.bus}</listen>"
        f'<policy context="default">{rules}</policy></busconfig>\n'
    )
    line = ["dbus-daemon", f"--config-file={configuration}", "--nofork", "--nopidfile"]
    with subprocess.Popen(line, env=user.environment) as bus:
        deadline = time.monotonic() + LIMIT
        while not (tmp_path / "bus").exists():
            assert time.monotonic() < deadline, "no bus"
            time.sleep(0.02)
        try:
            yield user
        finally:
            # Processes on the bus end with it.
            bus.terminate()


@needs_keyring
def test_a_sign_in_is_kept_in_the_keychain(user: User) -> None:
    """The record is not in a file. The next bridge finds it, `status` reports it, and `logout` removes and revokes it."""
    user.start_keyring()
    user.sign_in()
    assert user.files() == []
    status = user.do("status").stdout
    assert "kept in: the system's keychain" in status
    assert "renewable: yes" in status
    token, log = user.call()
    assert token.startswith("token ")
    assert "asks you to sign in" not in log
    before = user.server.log.stat().st_size
    assert user.do("logout").stdout == f"signed out of {user.server.url}\n"
    assert user.server.log.read_bytes()[before:].decode().count("revoked: true") == 2
    assert user.do("status").stdout.startswith("not signed in")


@needs_keyring
def test_a_record_in_a_file_moves_into_the_keychain(user: User) -> None:
    """A record in a file moves at the next sign-in or renewal. Until then it is used where it is."""
    user.start_keyring()
    user.sign_in("--no-keychain")
    (file,) = user.files()
    assert f"kept in: {file}" in user.do("status").stdout
    record = json.loads(file.read_text())
    # The token has expired, so it must be renewed.
    record["tokens"]["token_received_at"] = 0
    file.write_text(json.dumps(record))
    _, log = user.call()
    assert "the token is renewed" in log
    assert user.files() == []
    assert "kept in: the system's keychain" in user.do("status").stdout


@needs_keyring
def test_a_locked_keychain_is_left_alone(user: User) -> None:
    """The bridge does not ask to unlock it. Its records are unavailable, and new ones stay in a file until they can
    move.
    """
    user.start_keyring()
    user.sign_in()
    user.lock_keyring()
    status, logout = user.do("status"), user.do("logout")
    for refused in (status, logout):
        assert refused.returncode == 1
        assert "it is locked" in refused.stderr
    log = user.sign_in()
    assert "it is locked" in log
    assert "asks you to sign in" in log
    assert len(user.files()) == 1
    newer, _ = user.call()
    user.start_keyring()
    # Now the keychain has the older record.
    assert user.call()[0] == newer
    assert user.do("logout").stdout.startswith("signed out")
    assert user.files() == []
    assert user.do("status").stdout.startswith("not signed in")


@needs_bus
def test_without_a_keychain_a_file_is_used(user: User) -> None:
    """A file is used, without a warning."""
    log = user.sign_in()
    assert "keychain" not in log
    assert len(user.files()) == 1
    assert f"kept in: {user.files()[0]}" in user.do("status").stdout
    assert user.call()[0].startswith("token ")
    assert user.do("logout").stdout.startswith("signed out")
    assert user.files() == []


def test_a_silent_keychain_bus_is_tried_once_and_a_file_used(binary: str, running: Any, tmp_path: Path) -> None:
    """The bridge waits for it once, and then uses a file."""
    user = User(binary, running["guarded"], tmp_path, f"unix:path={tmp_path}/silent")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        log = user.sign_in()
        assert log.count("it does not answer") == 1, "it is read and written, but the log says nothing twice"
        assert len(user.files()) == 1
        assert user.call()[0].startswith("token ")
