"""The bundles for Claude Desktop: that of scripts/package-mcpb, and those of `mcp-gangway bundle` for a server.

The tool that defines the format (@anthropic-ai/mcpb, in the version of mcpb/package-lock.json) validates and unpacks
them, and packs them again. Then the command in the manifest is run for this system. The variables in it are replaced by
the code of that tool which hosts use (mcpb/command.mjs).

Programs for other platforms may be missing in target/dist/bin; files with a Mach-O header take their place where only
the format matters.
"""

from __future__ import annotations

import base64
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import LIMIT, REPOSITORY, Server, converse, without_proxies

sys.path.insert(0, str(REPOSITORY / "packaging"))
import common

PINS = REPOSITORY / "tests/packages/mcpb"
TOOLS = REPOSITORY / "target/packages/mcpb"
PROGRAM = common.host_binary()
SYSTEM = sys.platform
URL = "https://mcp.example.com/mcp"
ICON = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABh6FO1AAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="session")
def mcpb() -> Path:
    """Installs the tool and returns the folder of its package."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    lock = (PINS / "package-lock.json").read_bytes()
    stamp = TOOLS / "stamp"
    if not stamp.is_file() or stamp.read_bytes() != lock:
        shutil.copy(PINS / "package.json", TOOLS)
        shutil.copy(PINS / "package-lock.json", TOOLS)
        npm = shutil.which("npm")
        assert npm, "npm is missing; install Node.js 20 or later"
        install = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(install, cwd=TOOLS, check=True)
        stamp.write_bytes(lock)
    # Node.js looks for packages beside the script.
    shutil.copy(PINS / "command.mjs", TOOLS)
    return TOOLS


class Bundle(NamedTuple):
    """An unpacked bundle."""

    file: Path
    folder: Path
    manifest: dict[str, Any]
    tools: Path

    def command(self, answers: dict[str, Any], system: str = SYSTEM) -> dict[str, Any] | None:
        """Returns the command with its arguments and environment, as a host starts it; none if an answer is missing."""
        line = ["node", self.tools / "command.mjs", system, self.folder, json.dumps(answers)]
        command: dict[str, Any] | None = json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE).stdout)
        return command

    def converse(self, server: Server, answers: dict[str, Any]) -> str:
        """Has a session as a host does it, and returns what the program wrote to stderr."""
        command = self.command(answers)
        assert command
        # Hosts add the variables to a few of their own.
        env = {name: value for name, value in without_proxies().items() if not name.startswith("MCP_")}
        return converse(
            [command["command"], *command["args"]], server, env=env | command["env"], cwd=self.folder.parent
        )


def tool(mcpb: Path, *args: str | Path) -> str:
    line = ["node", mcpb / "node_modules/@anthropic-ai/mcpb/dist/cli/cli.js", *args]
    result = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT)
    assert result.returncode == 0, result.stdout
    return result.stdout


def opened(mcpb: Path, file: Path) -> Bundle:
    """Has the tool unpack and validate the bundle and pack it again."""
    folder = file.with_suffix(".unpacked")
    tool(mcpb, "unpack", file, folder)
    assert "validation passes" in tool(mcpb, "validate", folder)
    again = file.with_suffix(".again.mcpb")
    tool(mcpb, "pack", folder, again)
    assert again.is_file()
    assert str(file.name) in tool(mcpb, "info", file)
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        with zipfile.ZipFile(again) as packed:
            assert sorted(archive.namelist()) == sorted(packed.namelist())
        for entry in archive.infolist():
            mode = 0o755 if entry.filename.startswith("server/") else 0o644
            assert entry.external_attr >> 16 == 0o100000 | mode, entry
            assert (folder / entry.filename).stat().st_mode & 0o777 == mode or SYSTEM == "win32"
    return Bundle(file, folder, json.loads((folder / "manifest.json").read_text(encoding="utf-8")), mcpb)


def bundle(folder: Path, *args: str | Path, expect: int = 0) -> str:
    """Runs `mcp-gangway bundle` in the folder and returns what it says."""
    line = [PROGRAM, "bundle", *args]
    result = subprocess.run(line, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=LIMIT)
    assert result.returncode == expect and not result.stdout, result
    return result.stderr


def authorization(server: Server) -> Sequence[str | None]:
    return [request.headers.get("authorization") for request in server.requests]


def test_bundle_of_a_server_asks_for_a_token_and_headers_and_sends_them(
    mcpb: Path, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "icon.png").write_bytes(ICON)
    said = bundle(
        tmp_path,
        *[server.url, "--name", "example", "--display-name", "Example", "--icon", "icon.png"],
        *["--ask-token", "--ask-header", "X-Tenant", "--ask-header", "X-Api-Key", "--deny-tool", "delete_*"],
        *["--header", "X-Readonly: true", "--public"],
    )
    assert "wrote example.mcpb" in said and "asks for: Token, X-Tenant, X-Api-Key" in said
    opens = opened(mcpb, tmp_path / "example.mcpb")
    manifest = opens.manifest
    assert (manifest["name"], manifest["display_name"], manifest["icon"]) == ("example", "Example", "icon.png")
    assert manifest["compatibility"]["platforms"] == [SYSTEM]
    assert list(manifest["server"]["mcp_config"]["platform_overrides"]) == [SYSTEM]
    questions = manifest["user_config"]
    assert set(questions) == {"token", "header_x_tenant", "header_x_api_key"}
    assert all(question["sensitive"] and question["required"] for question in questions.values())
    # The program is this one, unchanged.
    assert (opens.folder / manifest["server"]["entry_point"]).read_bytes() == PROGRAM.read_bytes()

    assert opens.command({"token": "hunter2"}) is None
    answers = {"token": "hunter2", "header_x_tenant": "acme", "header_x_api_key": "hunter3"}
    command = opens.command(answers)
    assert command and "hunter" not in json.dumps([command["command"], command["args"]])
    said = opens.converse(server, answers)
    assert "hunter" not in said
    assert set(authorization(server)) == {"Bearer hunter2"}
    for request in server.requests:
        sent = {name: request.headers.get(name) for name in ("x-tenant", "x-api-key", "x-readonly")}
        assert sent == {"x-tenant": "acme", "x-api-key": "hunter3", "x-readonly": "true"}


def test_bundle_without_questions_runs_as_it_is(mcpb: Path, server: Server, tmp_path: Path) -> None:
    assert "asks" not in bundle(tmp_path, server.url, "--no-oauth", "--timeout", "20")
    opens = opened(mcpb, tmp_path / "127-0-0-1.mcpb")
    assert "user_config" not in opens.manifest
    assert opens.manifest["server"]["mcp_config"]["args"] == [server.url, "--timeout=20", "--no-oauth"]
    opens.converse(server, {})
    assert set(authorization(server)) == {None}


@pytest.fixture(scope="session")
def general(mcpb: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of scripts/package-mcpb in target/dist/mcpb."""
    path = common.DIST / "mcpb" / f"mcp-gangway-{common.version()}.mcpb"
    if not path.is_file():
        pytest.skip("target/dist/mcpb has no bundle; scripts/package-mcpb makes it")
    return opened(mcpb, Path(shutil.copy(path, tmp_path_factory.mktemp("general"))))


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({}, {"authorization": None}),
        ({"token": "hunter2"}, {"authorization": "Bearer hunter2"}),
        ({"token": "Bearer hunter2"}, {"authorization": "Bearer hunter2"}),
        ({"headers": "X-A: one\nX-B: two"}, {"authorization": None, "x-a": "one", "x-b": "two"}),
        ({"headers": "Authorization: Basic eDp5"}, {"authorization": "Basic eDp5"}),
        ({"header_file": "FILE"}, {"x-c": "three", "authorization": None}),
    ],
)
def test_general_bundle_asks_for_the_url_and_what_is_left_empty_is_not_sent(
    general: Bundle, server: Server, tmp_path: Path, answers: dict[str, str], expected: dict[str, str | None]
) -> None:
    assert general.command({}) is None
    (tmp_path / "headers.txt").write_text("# mine\nX-C: three\n")
    answers = {key: str(tmp_path / "headers.txt") if value == "FILE" else value for key, value in answers.items()}
    assert "WARN" not in general.converse(server, {"url": server.url} | answers)
    for request in server.requests:
        assert {name: request.headers.get(name) for name in expected} == expected


def test_general_bundle_has_the_programs_of_target_dist_bin(general: Bundle) -> None:
    built = {one.os for one in common.all_platforms() if one.binary.is_file()}
    platforms = general.manifest["compatibility"]["platforms"]
    assert set(platforms) == built
    licences = (general.folder / "LICENSE").read_text(encoding="utf-8")
    assert licences.lstrip().startswith("Apache License") and "rustls" in licences
    for system in platforms:
        command = general.command({"url": URL}, system)
        assert command and Path(command["command"]).is_file() and command["args"] == []


def test_settings_that_a_host_leaves_unreplaced_count_as_empty(general: Bundle, server: Server) -> None:
    """Hosts other than Claude Desktop may ignore the empty defaults."""
    for question in general.manifest["user_config"].values():
        question.pop("default", None)
    path = general.folder / "manifest.json"
    kept = path.read_bytes()
    path.write_text(json.dumps(general.manifest))
    try:
        command = general.command({"url": server.url})
        assert command and "${user_config.token}" in command["env"].values()
        assert "WARN" not in general.converse(server, {"url": server.url})
    finally:
        path.write_bytes(kept)
    assert set(authorization(server)) == {None}


def mach_o(cpu: int, subtype: int, size: int) -> bytes:
    return struct.pack("<IIII", 0xFEEDFACF, cpu, subtype, 2) + bytes(size)


def test_programs_of_one_system_are_joined(mcpb: Path, tmp_path: Path) -> None:
    x64, arm64 = mach_o(0x0100_0007, 3, 20_000), mach_o(0x0100_000C, 0, 5)
    programs = {
        "darwin-x64/mcp-gangway": x64,
        "darwin-arm64/mcp-gangway": arm64,
        "linux-x64/mcp-gangway": b'#!/bin/sh\necho x64 "$@"\n',
        "linux-x64-musl/mcp-gangway": b"unused",
        "linux-arm64-musl/mcp-gangway": b'#!/bin/sh\necho arm64 "$@"\n',
        "win32-x64/mcp-gangway.exe": b"MZ x64",
        "win32-arm64/mcp-gangway.exe": b"unused",
    }
    for name, content in programs.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    bundle(tmp_path, URL, "--binaries", "bin", "--output", "a.mcpb")
    bundle(tmp_path, URL, "--binaries", tmp_path / "bin", "--output", "b.mcpb")
    assert (tmp_path / "a.mcpb").read_bytes() == (tmp_path / "b.mcpb").read_bytes()
    opens = opened(mcpb, tmp_path / "a.mcpb")
    assert opens.manifest["compatibility"]["platforms"] == ["darwin", "linux", "win32"]

    commands = {system: opens.command({}, system) for system in ("darwin", "linux", "win32")}
    files = {system: Path(command["command"]) for system, command in commands.items() if command}
    assert files["win32"].name == "mcp-gangway.exe" and files["win32"].read_bytes() == b"MZ x64"

    universal = files["darwin"].read_bytes()
    magic, count = struct.unpack(">II", universal[:8])
    assert (magic, count) == (0xCAFEBABE, 2)
    for index, (program, cpu, subtype) in enumerate([(x64, 0x0100_0007, 3), (arm64, 0x0100_000C, 0)]):
        numbers = struct.unpack(">IIIII", universal[8 + 20 * index : 28 + 20 * index])
        start = numbers[2]
        assert (numbers[0], numbers[1], numbers[3], numbers[4]) == (cpu, subtype, len(program), 14)
        assert start % (1 << 14) == 0 and universal[start : start + len(program)] == program

    if SYSTEM == "linux":
        said = subprocess.run([files["linux"], "a b", "c"], check=True, capture_output=True, text=True, cwd="/").stdout
        assert said == f"{'arm64' if platform.machine() in ('aarch64', 'arm64') else 'x64'} a b c\n"

    (tmp_path / "bin/darwin-x64/mcp-gangway").write_bytes(b"no Mach-O")
    assert "Mach-O" in bundle(tmp_path, URL, "--binaries", "bin", expect=2)
    # One program alone is taken as it is.
    shutil.rmtree(tmp_path / "bin/darwin-arm64")
    bundle(tmp_path, URL, "--binaries", "bin")


def test_secrets_in_the_environment_are_not_written(tmp_path: Path) -> None:
    env = os.environ | {
        name: "hunter2" for name in ("MCP_AUTH", "MCP_HEADERS", "MCP_BEARER_TOKEN", "MCP_CLIENT_SECRET")
    }
    subprocess.run([PROGRAM, "bundle", URL], cwd=tmp_path, env=env, check=True, stdin=subprocess.DEVNULL, timeout=LIMIT)
    with zipfile.ZipFile(tmp_path / "mcp-example-com.mcpb") as archive:
        assert b"hunter2" not in archive.read("manifest.json")
