"""The Python wheels: what is in them, and a session through them as pip and uvx install them.

Tests the files of target/dist/wheels, which scripts/package-wheels makes.

Rule: nothing is built or fetched to install a wheel, so that a wheel that pip would not take fails.
"""

from __future__ import annotations

import base64
import csv
import email
import email.message
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest
from conftest import LIMIT, REPOSITORY, Server, converse, this_platform, without_proxies

WHEELS = REPOSITORY / "target/dist/wheels"
[VERSION] = re.findall(r'^version = "(.+)"$', (REPOSITORY / "Cargo.toml").read_text(), re.MULTILINE)
HERE = this_platform()
# The minor versions of Python 3 for which a wheel must work, if this machine has them.
MINORS = range(10, 15)

# Posts a message with the module, as a program would.
PROGRAM = """
import asyncio, json, sys
from importlib.metadata import version
import mcp_gangway

async def main():
    message = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "echo", "arguments": {"a": "ü"}}}
    async with mcp_gangway.AsyncClient(trust_env=False) as client:
        response = await client.post(sys.argv[1], json=message)
        print(json.dumps([version("mcp-gangway"), response.status_code, response.json()["id"]]))

asyncio.run(main())
"""


def read_platforms() -> dict[str, tuple[str, str]]:
    """Returns the wheel's tag and the file name of the command for each platform."""
    lines = (REPOSITORY / "packaging/platforms").read_text().splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    return {row[0]: (row[5], "mcp-gangway.exe" if row[2] == "win32" else "mcp-gangway") for row in rows}


PLATFORMS = read_platforms()
MADE = {name: path for name, (tag, _) in PLATFORMS.items() for path in WHEELS.glob(f"*{tag}*.whl")}


def test_there_is_a_wheel_for_this_machine_and_each_wheel_is_for_a_platform() -> None:
    assert HERE in MADE, f"no wheel for {HERE} in {WHEELS}; scripts/package-wheels {HERE} makes it"
    assert sorted(MADE.values()) == sorted(WHEELS.glob("*.whl"))


@pytest.fixture(params=sorted(MADE))
def platform(request: pytest.FixtureRequest) -> str:
    """The name of each platform that has a wheel."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def audit() -> ModuleType:
    """The module that refuses wrong wheels."""
    spec = importlib.util.spec_from_file_location("audit", REPOSITORY / "packaging/python/audit.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_names_and_tags(platform: str) -> None:
    wheel, (tag, _) = MADE[platform], PLATFORMS[platform]
    name, version, python, abi, platforms = wheel.stem.split("-")
    assert (name, version, python, abi) == ("mcp_gangway", VERSION, "cp310", "abi3")
    assert tag in platforms.split(".")
    written = email.message_from_bytes(read(wheel, "dist-info/WHEEL"))
    assert sorted(written.get_all("Tag", [])) == sorted(map("-".join, product([python], [abi], platforms.split("."))))
    assert written["Root-Is-Purelib"] == "false"


def test_contents(platform: str, audit: ModuleType) -> None:
    wheel, (_, command) = MADE[platform], PLATFORMS[platform]
    audit.audit(wheel)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        records = {row[0]: row[1] for row in csv.reader(io.StringIO(read(wheel, "dist-info/RECORD").decode()))}
        assert sorted(records) == sorted(names)
        for name, digest in records.items():
            if not name.endswith("/RECORD"):
                found = base64.urlsafe_b64encode(hashlib.sha256(archive.read(name)).digest()).rstrip(b"=").decode()
                assert digest == f"sha256={found}", name
        assert len({entry.date_time for entry in archive.infolist()}) == 1
    sources = (REPOSITORY / "python/mcp_gangway").glob("*.py*")
    expected = {f"mcp_gangway/{path.name}" for path in sources} | {"mcp_gangway/py.typed"}
    assert expected <= set(names)
    binary = REPOSITORY / "target/dist/bin" / platform / command
    assert read(wheel, f"scripts/{command}") == binary.read_bytes(), f"{wheel.name} is older than {binary}"


def test_no_file_names_a_folder_of_the_machine_that_built_it(platform: str) -> None:
    with zipfile.ZipFile(MADE[platform]) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            for folder in (REPOSITORY, Path.home() / ".cargo"):
                assert os.fsencode(folder) + b"/" not in data, f"{name} names {folder}"


def test_metadata(platform: str) -> None:
    metadata = email.message_from_bytes(read(MADE[platform], "dist-info/METADATA"))
    assert (metadata["Name"], metadata["Version"]) == ("mcp-gangway", VERSION)
    assert metadata["Requires-Python"] == ">=3.10"
    systems = {text for text in metadata.get_all("Classifier", []) if text.startswith("Operating System")}
    assert systems == {f"Operating System :: {one}" for one in ("MacOS", "Microsoft :: Windows", "POSIX :: Linux")}
    assert all("extra ==" in requirement for requirement in metadata.get_all("Requires-Dist", []))
    description = metadata.get_payload(decode=True)
    assert isinstance(description, bytes)
    assert description.decode().strip() == (REPOSITORY / "docs/python.md").read_text().strip()


def test_the_index_would_take_the_files() -> None:
    files = [*WHEELS.glob("*.whl"), *WHEELS.glob("*.tar.gz")]
    assert len(files) >= 2
    run(sys.executable, "-m", "twine", "check", "--strict", *files)


def test_the_sources_are_complete() -> None:
    [path] = WHEELS.glob("*.tar.gz")
    root = f"mcp_gangway-{VERSION}"
    assert path.name == f"{root}.tar.gz"
    with tarfile.open(path) as archive:
        names = archive.getnames()
        assert {member.uname for member in archive} <= {"", "root"}
        assert len({member.mtime for member in archive}) == 1
    needed = ("Cargo.toml", "Cargo.lock", "pyproject.toml", "PKG-INFO", ".cargo/config.toml", "python/build_backend.py")
    crates = [f"crates/{crate}/Cargo.toml" for crate in ("core", "cli", "python")]
    missing = [name for name in (*needed, *crates) if f"{root}/{name}" not in names]
    assert not missing
    assert not [name for name in names if name.endswith((".so", ".pyd", ".whl")) or "/target/" in name]


# A wheel that pip takes but that fails for its user.


@pytest.mark.parametrize(
    ("fault", "edit"),
    [
        ("needs GLIBC_9.17", lambda data: data.replace(b"GLIBC_2.17", b"GLIBC_9.17")),
        ("not an ELF file", lambda _: b"#!/bin/sh\nexit 0\n"),
        ("for EM_", lambda data: data[:18] + b"\x15" + data[19:]),
    ],
    ids=["newer C library", "script", "other processor"],
)
@pytest.mark.parametrize("member", ["scripts/mcp-gangway", "mcp_gangway/_native.abi3.so"])
def test_the_audit_refuses_a_program_that_does_not_run_on_the_tag(
    tmp_path: Path, audit: ModuleType, member: str, fault: str, edit: Callable[[bytes], bytes]
) -> None:
    wheel = edited(glibc_wheel(), tmp_path, lambda name, data: edit(data) if name.endswith(member) else data)
    with pytest.raises(audit.Fault, match=f"{member}: {fault}"):
        audit.audit(wheel)


def test_the_audit_refuses_a_module_that_needs_another_library(tmp_path: Path, audit: ModuleType) -> None:
    """auditwheel's part: a wheel with the tag of musl for programs of glibc, and a library that no system must have."""
    wheel = glibc_wheel()
    musl = tmp_path / re.sub(r"-manylinux\S+_(\w+?)\.whl$", "-musllinux_1_2_x86_64.whl", wheel.name)
    shutil.copyfile(wheel, musl)
    with pytest.raises(audit.Fault, match="not for musl"):
        audit.audit(musl)
    foreign = edited(wheel, tmp_path, lambda _, data: data.replace(b"\0libpthread.so.0\0", b"\0libpthreax.so.0\0"))
    with pytest.raises(audit.Fault, match=r"auditwheel says linux_.*libpthreax"):
        audit.audit(foreign)


def test_the_audit_refuses_a_wheel_without_its_command_or_with_two(tmp_path: Path, audit: ModuleType) -> None:
    wheel = glibc_wheel()
    without = edited(wheel, tmp_path, lambda name, data: None if "/scripts/" in name else data)
    with pytest.raises(audit.Fault, match=r"must be mcp-gangway only, and are \[\]"):
        audit.audit(without)
    with zipfile.ZipFile(without, "a") as archive:
        for name in ("mcp-gangway", "mcp-gangway.exe"):
            archive.writestr(f"mcp_gangway-{VERSION}.data/scripts/{name}", b"")
    with pytest.raises(audit.Fault, match=r"must be mcp-gangway only, and are .*exe"):
        audit.audit(without)


# Installed.


def interpreters() -> dict[int, str]:
    """Returns an interpreter for each minor version of Python 3 that this machine has."""
    found = {sys.version_info.minor: sys.executable}
    for minor in MINORS:
        pyenv = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
        if path := shutil.which(f"python3.{minor}") or (str(pyenv[-1]) if pyenv else None):
            # A shim of pyenv is there also for versions that are not selected, and then fails.
            asked = subprocess.run([path, "-c", "import venv"], capture_output=True, check=False)
            if asked.returncode == 0:
                found.setdefault(minor, path)
            elif pyenv:
                found.setdefault(minor, str(pyenv[-1]))
    return found


INTERPRETERS = interpreters()


@pytest.mark.parametrize("minor", MINORS, ids=lambda minor: f"3.{minor}")
def test_pip_installs_the_command_and_the_module(minor: int, tmp_path: Path, server: Server) -> None:
    if minor not in INTERPRETERS:
        pytest.skip(f"this machine has no Python 3.{minor}")
    run(INTERPRETERS[minor], "-m", "venv", tmp_path / "venv")
    folder = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python = folder / "python"
    # pip chooses among the wheels of all platforms.
    offline = ["--no-index", "--find-links", str(WHEELS), "--only-binary", ":all:", "--disable-pip-version-check"]
    run(python, "-m", "pip", "install", *offline, f"mcp-gangway=={VERSION}")

    converse([folder / "mcp-gangway", server.url], server, cwd=tmp_path)
    converse([python, "-m", "mcp_gangway", server.url], server, cwd=tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    assert json.loads(run(python, "-W", "error", tmp_path / "program.py", server.url)) == [VERSION, 200, 7]
    assert run(folder / "mcp-gangway", "--version").split()[-1] == VERSION

    run(python, "-m", "pip", "uninstall", "--yes", "mcp-gangway")
    assert not list(folder.glob("mcp-gangway*"))


def test_uvx_runs_the_command(tmp_path: Path, server: Server) -> None:
    environment = without_proxies() | {
        "UV_CACHE_DIR": str(tmp_path / "cache"),
        "UV_TOOL_DIR": str(tmp_path / "tools"),
        "UV_PYTHON_DOWNLOADS": "never",
    }
    uv = [sys.executable, "-m", "uv", "tool", "run", "--offline", "--no-config", "--python", sys.executable]
    converse([*uv, "--from", MADE[HERE], "mcp-gangway", server.url], server, env=environment, cwd=tmp_path)
    # As the documentation has it, with the folder in the place of the index.
    local = ["--no-index", "--find-links", str(WHEELS), "--no-build"]
    converse([*uv, *local, f"mcp-gangway@{VERSION}", server.url], server, env=environment, cwd=tmp_path)


@pytest.mark.timeout(5400)
def test_equal_inputs_give_equal_bytes() -> None:
    """Packs the wheel of this machine and the sources again. Compiles for minutes if the sources changed since."""
    [sources] = WHEELS.glob("*.tar.gz")
    before = {path: path.read_bytes() for path in (MADE[HERE], sources)}
    script = [sys.executable, str(REPOSITORY / "scripts/package-wheels"), HERE]
    # Another time zone and another mask for the modes of files.
    mask = os.umask(0o077)
    try:
        subprocess.run(script, check=True, env=os.environ | {"TZ": "Asia/Kolkata"}, stdout=subprocess.DEVNULL)
    finally:
        os.umask(mask)
    for path, data in before.items():
        assert path.read_bytes() == data, f"{path.name} differs; were the sources changed after it was made?"


def read(wheel: Path, end: str) -> bytes:
    """Returns the content of the one file of a wheel whose name ends so."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(end)]
        return archive.read(name)


def edited(wheel: Path, folder: Path, edit: Callable[[str, bytes], bytes | None]) -> Path:
    """Copies a wheel into a folder. `edit` gets the name and content of each file and returns the new one, or None."""
    copy = folder / wheel.name
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(copy, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
        for entry in source.infolist():
            if (data := edit(entry.filename, source.read(entry))) is not None:
                target.writestr(entry, data)
    return copy


def glibc_wheel() -> Path:
    """Returns a wheel for Linux with glibc."""
    wheels = [path for name, path in MADE.items() if PLATFORMS[name][0].startswith("manylinux")]
    if not wheels:
        pytest.skip("there is no wheel for Linux with glibc")
    return wheels[0]


def run(*command: str | Path) -> str:
    """Runs a program that must succeed, and returns what it printed."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, capture_output=True, encoding="utf-8", timeout=5 * LIMIT, env=without_proxies(), check=False
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout
