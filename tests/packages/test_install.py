"""Tests the install script against a release's downloads that a local HTTP server offers.

Rule: each installation has its own home and prefix. The downloads are the archives of target/dist/archives, completed
by packaging/sign with a throw-away key.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY, Bridge, Server, converse, this_platform, without_proxies

sys.path.insert(0, str(REPOSITORY / "packaging"))
import common

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="install.sh is for Linux and macOS")

HERE = next(one for one in common.all_platforms() if one.name == this_platform())
# What the script may use, except for the programs that the tests add or leave out.
PROGRAMS = [
    "sh",
    "awk",
    "cat",
    "chmod",
    "cp",
    "curl",
    "cut",
    "getconf",
    "gzip",
    "mkdir",
    "mktemp",
    "mv",
    "rm",
    "sha256sum",
    "shasum",
    "sysctl",
    "tar",
    "uname",
]


class Downloads:
    """The folder of a release's downloads, and its address."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url

    @property
    def archive(self) -> Path:
        return self.folder / f"{HERE.archive}.{HERE.extension}"


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signed")
    for one in common.all_platforms():
        path = common.DIST / "archives" / f"{one.archive}.{one.extension}"
        if path.is_file():
            shutil.copy(path, folder)
    assert (folder / f"{HERE.archive}.{HERE.extension}").is_file(), f"run scripts/package-archives {HERE.name} first"
    environment = {name: value for name, value in os.environ.items() if name != "MINISIGN_KEY"}
    subprocess.run([sys.executable, REPOSITORY / "packaging" / "sign", folder], check=True, env=environment)
    return folder


@pytest.fixture
def downloads(signed: Path, tmp_path: Path) -> Iterator[Downloads]:
    folder = tmp_path / "downloads"
    shutil.copytree(signed, folder)
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield Downloads(folder, f"http://127.0.0.1:{web.server_port}")
        web.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def programs(folder: Path, *, without: tuple[str, ...] = (), also: tuple[str, ...] = ()) -> Path:
    """Makes a folder for PATH with only these programs."""
    folder.mkdir()
    for name in [*PROGRAMS, *also]:
        found = shutil.which(name)
        if not found and name in also and sys.platform != "linux":
            pytest.skip(f"this system does not come with {name}")
        assert found or name not in also, f"{name} is missing: run packaging/setup-tests as root, or install it"
        if found and name not in without:
            (folder / name).symlink_to(found)
    return folder


def fake(folder: Path, name: str, script: str) -> None:
    """Puts a program of the test's own in the place of one."""
    path = folder / name
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def install(downloads: Downloads, tmp_path: Path, path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the script as `curl … | sh` does."""
    environment = {
        "PATH": str(path),
        "HOME": str(tmp_path),
        "PREFIX": str(tmp_path / "prefix"),
        "BASE_URL": downloads.url,
    }
    return subprocess.run(
        ["sh"],
        input=(downloads.folder / "install.sh").read_text(),
        env=environment | variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_script_installs_a_command_that_works(downloads: Downloads, tmp_path: Path, server: Server) -> None:
    done = install(downloads, tmp_path, programs(tmp_path / "bin", also=("minisign",)))
    assert done.returncode == 0, done.stderr
    prefix = tmp_path / "prefix"
    assert f"as {prefix}/bin/mcp-gangway" in done.stderr and f"{prefix}/bin is not in PATH" in done.stderr
    assert sorted(str(path.relative_to(prefix)) for path in prefix.rglob("*") if path.is_file()) == [
        "bin/mcp-gangway",
        "share/bash-completion/completions/mcp-gangway",
        "share/doc/mcp-gangway/LICENSE",
        "share/doc/mcp-gangway/THIRD-PARTY-LICENSES.txt",
        "share/fish/vendor_completions.d/mcp-gangway.fish",
        "share/man/man1/mcp-gangway.1",
        "share/zsh/site-functions/_mcp-gangway",
    ]
    assert "is not checked" not in done.stderr
    converse([prefix / "bin/mcp-gangway", server.url], server)


def test_the_default_prefix_is_in_the_home_folder(downloads: Downloads, tmp_path: Path) -> None:
    done = install(downloads, tmp_path, programs(tmp_path / "bin"), PREFIX="")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".local/bin/mcp-gangway").is_file()


def test_a_bridge_that_runs_goes_on_while_its_command_is_replaced(
    downloads: Downloads, tmp_path: Path, server: Server
) -> None:
    path = programs(tmp_path / "bin")
    assert install(downloads, tmp_path, path).returncode == 0
    with Bridge([tmp_path / "prefix/bin/mcp-gangway", server.url], without_proxies()) as bridge:
        bridge.initialize()
        done = install(downloads, tmp_path, path)
        assert done.returncode == 0, done.stderr
        bridge.call(1, "echo", text="still here")
        assert "still here" in bridge.receive()["result"]["content"][0]["text"]


def test_without_minisign_the_hash_is_checked_and_the_user_told(downloads: Downloads, tmp_path: Path) -> None:
    done = install(downloads, tmp_path, programs(tmp_path / "bin"))
    assert done.returncode == 0 and "The signature is not checked, because minisign is not installed" in done.stderr


@pytest.mark.parametrize("also", [(), ("minisign",)], ids=["hash", "signature"])
def test_a_changed_archive_is_refused(downloads: Downloads, tmp_path: Path, also: tuple[str, ...]) -> None:
    with downloads.archive.open("ab") as file:
        file.write(b"\0")
    done = install(downloads, tmp_path, programs(tmp_path / "bin", also=also))
    assert done.returncode == 1 and "does not have the hash that SHA256SUMS has for it" in done.stderr
    assert not (tmp_path / "prefix").exists()


def test_changed_sums_are_refused_if_minisign_is_installed(downloads: Downloads, tmp_path: Path) -> None:
    with downloads.archive.open("ab") as file:
        file.write(b"\0")
    sums = downloads.folder / "SHA256SUMS"
    lines = [line for line in sums.read_text().splitlines() if not line.endswith(downloads.archive.name)]
    sums.write_text("\n".join([*lines, f"{common.sha256(downloads.archive)}  {downloads.archive.name}", ""]))
    done = install(downloads, tmp_path, programs(tmp_path / "bin", also=("minisign",)))
    assert done.returncode == 1 and "the signature of SHA256SUMS is not the project's" in done.stderr
    assert not (tmp_path / "prefix").exists()


def test_an_archive_that_the_sums_do_not_list_is_refused(downloads: Downloads, tmp_path: Path) -> None:
    (downloads.folder / "SHA256SUMS").write_text(f"{'0' * 64}  other.tar.gz\n")
    done = install(downloads, tmp_path, programs(tmp_path / "bin"))
    assert done.returncode == 1 and f"SHA256SUMS has no {downloads.archive.name}" in done.stderr
    assert not (tmp_path / "prefix").exists()


@pytest.mark.parametrize(
    ("machine", "system", "libc", "expected"),
    [
        ("x86_64", "Linux", "exit 1", "linux-x64-musl"),
        ("x86_64", "Linux", "echo glibc 2.16", "linux-x64-musl"),
        ("x86_64", "Linux", "echo glibc 2.5", "linux-x64-musl"),
        ("x86_64", "Linux", "echo glibc 2.17", "linux-x64"),
        ("x86_64", "Linux", "echo glibc 2.41", "linux-x64"),
        ("aarch64", "Linux", "exit 1", "linux-arm64-musl"),
        ("arm64", "Darwin", "exit 1", "darwin-arm64"),
        ("x86_64", "Darwin", "exit 1", "darwin-x64"),
    ],
)
def test_the_archive_for_the_platform_is_chosen(
    downloads: Downloads, tmp_path: Path, machine: str, system: str, libc: str, expected: str
) -> None:
    if expected == "linux-x64" and HERE.name != expected:
        pytest.skip("the usual place of glibc is looked up on the machine itself")
    path = programs(tmp_path / "bin")
    fake(path, "uname", f'case "$1" in -m) echo {machine} ;; -s) echo {system} ;; esac')
    fake(path, "getconf", libc)
    done = install(downloads, tmp_path, path)
    assert f"Fetching {downloads.url}/mcp-gangway-{common.version()}-{expected}.tar.gz" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("machine", "system", "expected"), [("riscv64", "Linux", "cargo install"), ("x86_64", "MINGW64_NT", "install.ps1")]
)
def test_other_platforms_are_told_what_to_do(
    downloads: Downloads, tmp_path: Path, machine: str, system: str, expected: str
) -> None:
    path = programs(tmp_path / "bin")
    fake(path, "uname", f'case "$1" in -m) echo {machine} ;; -s) echo {system} ;; esac')
    done = install(downloads, tmp_path, path)
    assert done.returncode != 0 and expected in done.stderr
    assert not (tmp_path / "prefix").exists()


def test_wget_and_openssl_will_do(downloads: Downloads, tmp_path: Path) -> None:
    path = programs(tmp_path / "bin", without=("curl", "sha256sum"), also=("wget", "openssl"))
    done = install(downloads, tmp_path, path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "prefix/bin/mcp-gangway").is_file()


def test_a_missing_version_is_an_error_with_its_address(downloads: Downloads, tmp_path: Path) -> None:
    done = install(downloads, tmp_path, programs(tmp_path / "bin"), BASE_URL=f"{downloads.url}/nowhere")
    assert done.returncode == 1 and f"cannot fetch {downloads.url}/nowhere/SHA256SUMS" in done.stderr


def test_the_script_of_the_repository_refuses_to_run(tmp_path: Path) -> None:
    script = REPOSITORY / "packaging" / "install.sh"
    done = subprocess.run(
        ["sh", script], env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 1 and "take this script from a release" in done.stderr


def test_no_beginning_of_the_script_does_anything(downloads: Downloads, tmp_path: Path) -> None:
    lines = (downloads.folder / "install.sh").read_text().splitlines(keepends=True)
    path = programs(tmp_path / "bin")
    for end in range(len(lines)):
        (downloads.folder / "install.sh").write_text("".join(lines[:end]))
        install(downloads, tmp_path, path)
        assert not (tmp_path / "prefix").exists(), f"after {end} lines"


def test_the_shell_scripts_of_packaging_pass_shellcheck() -> None:
    found = shutil.which("shellcheck")
    assert found, "shellcheck is missing: run packaging/setup-tests as root, or install it"
    scripts = [REPOSITORY / "packaging" / name for name in ("install.sh", "install-tools", "setup-tests")]
    said = subprocess.run([found, *scripts], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout


def test_the_scripts_for_users_have_the_version_and_the_key(downloads: Downloads) -> None:
    key = (common.DIST / "throw-away.pub").read_text().split()[-1]
    for name in ("install.sh", "install.ps1"):
        text = (downloads.folder / name).read_text()
        assert key in text and common.version() in text and "@VERSION@" not in text and "@MINISIGN_KEY@" not in text


def test_signing_needs_the_public_half_of_a_real_key(signed: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    public = tmp_path / "other.pub"
    subprocess.run(
        [common.tool("rsign"), "generate", "-W", "-p", public, "-s", other], check=True, stdout=subprocess.DEVNULL
    )
    folder = tmp_path / "folder"
    shutil.copytree(signed, folder)
    environment = os.environ | {"MINISIGN_KEY": other.read_text()}
    done = subprocess.run(
        [sys.executable, REPOSITORY / "packaging" / "sign", folder], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    if (REPOSITORY / "packaging" / "minisign.pub").is_file():
        assert "rsign failed" in done.stderr
    else:
        assert "packaging/minisign.pub is missing" in done.stderr
    secret = other.read_text().splitlines()[-1]
    assert secret not in done.stdout + done.stderr
