"""The npm packages, from a registry on this machine to a session through `npx`, and the launcher in them.

The registry is verdaccio, in the version of npm/package-lock.json, without a connection to any other registry. It has
the packages of all platforms: the real program for this one, and for each other platform the program in
target/dist/bin, or a text in its place. Tests of the launcher run with Node.js 18, where it stays as the program's
parent, and with Node.js 24, where it becomes the program.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import LIMIT, REPOSITORY, Bridge, Server, converse, this_platform, without_proxies

TOOLS = REPOSITORY / "target/packages/npm"
[VERSION] = re.findall(r'^version = "(.+)"$', (REPOSITORY / "Cargo.toml").read_text(), re.MULTILINE)
HERE = this_platform()


class Platform(NamedTuple):
    name: str
    os: str
    cpu: str
    libc: str | None

    @property
    def package(self) -> str:
        return f"@mcp-gangway/{self.name}"

    @property
    def program(self) -> str:
        return "mcp-gangway.exe" if self.os == "win32" else "mcp-gangway"

    @property
    def options(self) -> list[str]:
        """npm's options to install for this platform."""
        return [f"--os={self.os}", f"--cpu={self.cpu}", *([f"--libc={self.libc}"] if self.libc else [])]


def read_platforms() -> list[Platform]:
    lines = (REPOSITORY / "packaging/platforms").read_text().splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    return [Platform(name, os, cpu, None if libc == "-" else libc) for name, _, os, cpu, libc, *_ in rows]


PLATFORMS = {platform.name: platform for platform in read_platforms()}
MUSL = f"{HERE.removesuffix('-musl')}-musl"
needs_glibc = pytest.mark.skipif(MUSL not in PLATFORMS or MUSL == HERE, reason="needs Linux with glibc")


@pytest.fixture(scope="session", autouse=True)
def no_core_files() -> None:
    """Some tests end programs by SIGQUIT, which leaves a core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


@pytest.fixture(scope="session")
def tools() -> Path:
    """The folder with verdaccio and the versions of Node.js, as npm/package-lock.json pins them."""
    pins = Path(__file__).parent / "npm"
    stamp = TOOLS / "stamp"
    lock = (pins / "package-lock.json").read_text()
    if not stamp.exists() or stamp.read_text() != lock:
        TOOLS.mkdir(parents=True, exist_ok=True)
        stamp.unlink(missing_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(pins / name, TOOLS / name)
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--engine-strict=false"]
        subprocess.run(["npm", "ci", "--prefix", str(TOOLS), *options], check=True)
        stamp.write_text(lock)
    return TOOLS / "node_modules"


@pytest.fixture(scope="session", params=["18", "24"], ids=["node18", "node24"])
def node(request: pytest.FixtureRequest, tools: Path) -> Path:
    """The folder of a `node`: of the oldest supported version, and of one with `process.execve`."""
    folder = tools / f"node-{request.param}-{HERE}" / "bin"
    if not folder.is_dir():
        pytest.skip(f"npm has no Node.js {request.param} for {HERE}")
    return folder


def becomes_the_program(node: Path) -> bool:
    return "-24-" in str(node)


def pack(binaries: Path, out: Path) -> dict[str, Path]:
    """Runs scripts/package-npm, and returns the packages by name."""
    command: list[str | Path] = [REPOSITORY / "scripts/package-npm", "--binaries", binaries, "--out", out]
    subprocess.run(command, check=True, cwd=out.parent)
    return {manifest(package)["name"]: package for package in sorted(out.iterdir())}


def manifest(package: Path) -> dict[str, Any]:
    with tarfile.open(package) as archive:
        member = archive.extractfile("package/package.json")
        assert member
        content: dict[str, Any] = json.load(member)
        return content


@pytest.fixture(scope="session")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like target/dist/bin that has all platforms."""
    folder = tmp_path_factory.mktemp("bin")
    for platform in PLATFORMS.values():
        real = REPOSITORY / "target/dist/bin" / platform.name / platform.program
        target = folder / platform.name / platform.program
        target.parent.mkdir()
        if real.exists():
            shutil.copyfile(real, target)
        else:
            assert platform.name != HERE, f"{real} is missing; scripts/build-platform {HERE} makes it"
            target.write_text(f"in place of the program for {platform.name}")
    return folder


@pytest.fixture(scope="session")
def packages(binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return pack(binaries, tmp_path_factory.mktemp("packed") / "npm")


class Npm:
    """npm with a configuration and a cache of its own, and the registry of the tests."""

    def __init__(self, folder: Path, registry: str) -> None:
        self.folder = folder
        config = folder / "npmrc"
        # npm publishes only with a token. This registry lets everybody publish.
        config.write_text(f"registry={registry}\n{registry.removeprefix('http:')}:_authToken=none\n")
        own = {name: value for name, value in without_proxies().items() if not name.lower().startswith("npm_")}
        self.env = own | {
            "HOME": str(folder),
            "npm_config_userconfig": str(config),
            "npm_config_globalconfig": str(folder / "none"),
            "npm_config_cache": str(folder / "cache"),
            "npm_config_update_notifier": "false",
            "npm_config_audit": "false",
            "npm_config_fund": "false",
        }

    def __call__(self, *args: str | Path, cwd: Path) -> None:
        done = subprocess.run(["npm", *args], cwd=cwd, env=self.env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def registry(tools: Path, packages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a registry with all packages."""
    folder = tmp_path_factory.mktemp("registry")
    config = folder / "config.yaml"
    config.write_text(
        "storage: ./storage\nuplinks: {}\nmax_body_size: 100mb\nweb: {enable: false}\n"
        "auth: {htpasswd: {file: ./htpasswd}}\npackages: {'**': {access: $all, publish: $all}}\n"
        f"log: {{type: file, path: {folder / 'log'}, level: info}}\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    node = next(tools.glob(f"node-24-{HERE}/bin/node"), "node")
    command: list[str | Path] = [node, tools / "verdaccio/bin/verdaccio", "--config", config, "--listen", url]
    output = (folder / "output").open("wb")
    with output, subprocess.Popen(command, cwd=folder, stdout=output, stderr=output) as process:
        try:
            wait_until_ready(url, process, folder / "output")
            npm = Npm(folder, url)
            # The main package is last, as in a release.
            for name in sorted(packages, key=lambda name: name == "mcp-gangway"):
                npm("publish", packages[name], cwd=folder)
            yield url
        finally:
            process.terminate()


def wait_until_ready(url: str, process: subprocess.Popen[bytes], output: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + LIMIT
    while True:
        try:
            opener.open(f"{url}-/ping").close()
            return
        except urllib.error.URLError:
            assert process.poll() is None and time.monotonic() < end, output.read_text()
            time.sleep(0.1)


@pytest.fixture
def npm(registry: str, tmp_path: Path) -> Npm:
    """npm with an empty cache."""
    folder = tmp_path / "npm"
    folder.mkdir()
    return Npm(folder, registry)


@pytest.fixture(scope="session")
def original(registry: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where `npm install mcp-gangway` ran. Tests do not change it."""
    folder = tmp_path_factory.mktemp("original")
    Npm(tmp_path_factory.mktemp("npm"), registry)("install", f"mcp-gangway@{VERSION}", cwd=folder)
    return folder


@pytest.fixture
def installed(original: Path, tmp_path: Path) -> Path:
    """A copy of such a folder that a test may change."""
    return Path(shutil.copytree(original, tmp_path / "installed", symlinks=True))


@pytest.fixture(params=["path", "24"], ids=["node", "node24"])
def npx_path(request: pytest.FixtureRequest, tools: Path) -> str:
    """The PATH where `npx` runs with the Node.js on PATH, or with one that has `process.execve`."""
    node = tools / f"node-24-{HERE}" / "bin"
    if request.param == "24" and not node.is_dir():
        pytest.skip(f"npm has no Node.js 24 for {HERE}")
    return os.environ["PATH"] if request.param == "path" else with_node(node)["PATH"]


def launcher(folder: Path) -> Path:
    return folder / "node_modules/.bin/mcp-gangway"


def with_node(node: Path) -> dict[str, str]:
    """The environment where `node` is the one in this folder."""
    env = without_proxies()
    return env | {"PATH": f"{node}{os.pathsep}{env['PATH']}"}


def run(node: Path, folder: Path, *args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [launcher(folder), *args]
    env = with_node(node) | (env or {})
    return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT)


def replace_program(folder: Path, script: str, platform: str = HERE, name: str = "mcp-gangway") -> None:
    """Puts a shell script in place of a platform's program."""
    program = folder / "node_modules/@mcp-gangway" / platform / name
    program.parent.mkdir(exist_ok=True)
    program.unlink(missing_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def platform_packages(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "node_modules/@mcp-gangway").iterdir())


def test_equal_programs_give_equal_packages(
    binaries: Path, packages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "bin"
    shutil.copytree(binaries, copy, copy_function=shutil.copyfile)
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    umask = os.umask(0o077)
    try:
        again = pack(copy, tmp_path / "npm")
    finally:
        os.umask(umask)
    assert {name: path.read_bytes() for name, path in again.items()} == {
        name: path.read_bytes() for name, path in packages.items()
    }


def test_a_platform_without_a_program_is_left_out_unless_it_was_named(binaries: Path, tmp_path: Path) -> None:
    shutil.copytree(binaries / HERE, tmp_path / "bin" / HERE)
    assert set(pack(tmp_path / "bin", tmp_path / "npm")) == {"mcp-gangway", PLATFORMS[HERE].package}
    missing = next(name for name in PLATFORMS if name != HERE)
    command: list[str | Path] = [
        REPOSITORY / "scripts/package-npm",
        "--binaries",
        tmp_path / "bin",
        "--out",
        tmp_path / "npm",
        missing,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and f"scripts/build-platform {missing} makes it" in done.stderr


def test_manifests_say_where_each_program_runs(packages: dict[str, Path]) -> None:
    main = manifest(packages["mcp-gangway"])
    assert main["version"] == VERSION
    assert main["optionalDependencies"] == {platform.package: VERSION for platform in PLATFORMS.values()}
    for platform in PLATFORMS.values():
        described = manifest(packages[platform.package])
        assert (described["os"], described["cpu"]) == ([platform.os], [platform.cpu])
        assert described.get("libc") == ([platform.libc] if platform.libc else None)
        assert described["version"] == VERSION
        with tarfile.open(packages[platform.package]) as archive:
            assert archive.getmember(f"package/{platform.program}").mode == 0o755
    assert not any("scripts" in manifest(package) for package in packages.values()), "nothing runs at installation"


@pytest.mark.parametrize("platform", PLATFORMS.values(), ids=PLATFORMS)
def test_npm_installs_only_the_platforms_package(platform: Platform, npm: Npm, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    npm("install", f"mcp-gangway@{VERSION}", *platform.options, cwd=folder)
    assert platform_packages(folder) == [platform.name]


def test_npm_installs_this_platforms_package(original: Path) -> None:
    assert platform_packages(original) == [HERE]
    assert [path.name for path in (original / "node_modules/.bin").iterdir()] == ["mcp-gangway"]


def test_npx_runs_a_session_from_an_empty_cache(npm: Npm, npx_path: str, server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    command = ["npx", "--yes", f"mcp-gangway@{VERSION}", server.url]
    assert converse(command, server, env=npm.env | {"PATH": npx_path}, cwd=folder) == ""
    assert list(folder.iterdir()) == []


def test_the_bridge_ends_with_npx(npm: Npm, npx_path: str, server: Server, tmp_path: Path) -> None:
    command = ["npx", "--yes", f"mcp-gangway@{VERSION}", server.url]
    with Bridge(command, npm.env | {"PATH": npx_path}, tmp_path) as bridge:
        bridge.initialize()
        # npm ends at once, and stdin stays open in this process.
        bridge.process.terminate()
        server.wait_for("DELETE")
        assert bridge.process.stdout and bridge.process.stdout.read() == b""


def test_the_installed_command_runs_a_session(node: Path, original: Path, server: Server) -> None:
    text = '100% of "a b" \\ %PATH% ~'
    command: list[str | Path] = [launcher(original), "--header", f"X-Text: {text}", server.url]
    assert converse(command, server, env=with_node(node)) == ""
    assert server.requests[0].headers["x-text"] == text


def test_the_exit_status_is_the_programs(node: Path, original: Path) -> None:
    done = run(node, original, "--bad-option")
    assert done.returncode == 2 and "--bad-option" in done.stderr
    done = run(node, original, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"mcp-gangway {VERSION}\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_bridge_in_good_order(
    number: signal.Signals, node: Path, original: Path, server: Server
) -> None:
    with Bridge([launcher(original), server.url], with_node(node)) as bridge:
        bridge.initialize()
        bridge.call(7, "hang")
        server.wait_for("POST", "hang")
        bridge.process.send_signal(number)
        answer = bridge.receive()
        assert (answer["id"], answer["error"]["data"]["kind"]) == (7, "shutdown")
        assert bridge.end() == 0, bridge.stderr
        server.wait_for("DELETE")


def test_a_signal_that_ends_the_program_ends_the_launcher(node: Path, original: Path, server: Server) -> None:
    with Bridge([launcher(original), server.url], with_node(node)) as bridge:
        bridge.initialize()
        bridge.process.send_signal(signal.SIGQUIT)
        assert bridge.end() == -signal.SIGQUIT


def test_a_program_that_kills_itself_ends_the_launcher_the_same_way(node: Path, installed: Path) -> None:
    replace_program(installed, "kill -KILL $$")
    assert run(node, installed).returncode == -signal.SIGKILL


@pytest.mark.skipif(not HERE.startswith("linux"), reason="reads /proc")
def test_the_bridge_ends_with_the_launcher(node: Path, original: Path, server: Server) -> None:
    with Bridge([launcher(original), server.url], with_node(node)) as bridge:
        bridge.initialize()
        pid = bridge.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if becomes_the_program(node):
            assert Path(f"/proc/{pid}/exe").resolve().name == "mcp-gangway" and not children
            return
        [child] = children
        assert Path(f"/proc/{child}/exe").resolve().name == "mcp-gangway"
        # stdin stays open in this process. The end of stdout shows that the child has ended.
        bridge.process.kill()
        assert bridge.process.stdout and bridge.process.stdout.read() == b""
        server.wait_for("DELETE")


def test_on_windows_a_console_event_does_not_end_the_launcher_before_the_program(
    node: Path, installed: Path, tmp_path: Path
) -> None:
    preload = tmp_path / "preload.js"
    preload.write_text("Object.defineProperty(process, 'platform', { value: 'win32' });")
    # The console would send the event to the program too. Here only the launcher gets it.
    windows = f"win32-{HERE.split('-')[1]}"
    replace_program(installed, "echo ready; read line; exit 7", windows, "mcp-gangway.exe")
    env = with_node(node) | {"NODE_OPTIONS": f"--require={preload}"}
    with Bridge([launcher(installed)], env) as bridge:
        assert bridge.process.stdin and bridge.process.stdout
        assert bridge.process.stdout.readline() == b"ready\n"
        bridge.process.send_signal(signal.SIGINT)
        bridge.process.send_signal(signal.SIGHUP)
        bridge.process.stdin.close()
        assert bridge.end() == 7, bridge.stderr


def test_arguments_and_environment_pass_unchanged(node: Path, installed: Path) -> None:
    replace_program(installed, """printf '%s\\0' "$@" "$TEXT" """)
    texts = [
        "",
        " ",
        "a b",
        '"',
        "it's",
        '\\"',
        "100%",
        "%PATH%",
        "$HOME",
        "`id`",
        "a\nb",
        "*",
        "Grüße 世界 🦀",
        "--",
        "&|<>^",
    ]
    done = run(node, installed, *texts, env={"TEXT": "ö = \"1\" '2'"})
    assert done.stdout.split("\0") == [*texts, "ö = \"1\" '2'", ""]
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not HERE.startswith("linux"), reason="reads /proc")
def test_the_program_gets_the_three_streams_unchanged_and_nothing_else(node: Path, installed: Path) -> None:
    replace_program(installed, "cd /proc/$$/fd; for f in [0-9]*; do readlink $f && grep flags ../fdinfo/$f; done")
    with subprocess.Popen(
        [launcher(installed)],
        env=with_node(node),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        ends = (process.stdin, process.stdout, process.stderr)
        names = [os.readlink(f"/proc/self/fd/{end.fileno()}") for end in ends if end]
        out, err = process.communicate(timeout=LIMIT)
    assert err == b""
    found = re.findall(r"(.*)\nflags:\s*(\d+)\n", out.decode())
    # The shell reads its script from one more file.
    streams = [(name, int(flags, 8)) for name, flags in found if not name.endswith("/mcp-gangway")]
    assert [name for name, _ in streams] == names
    assert not any(flags & (os.O_NONBLOCK | os.O_CLOEXEC) for _, flags in streams)


def test_a_missing_package_is_explained_and_the_advice_helps(node: Path, npm: Npm, tmp_path: Path) -> None:
    npm("install", f"mcp-gangway@{VERSION}", "--omit=optional", cwd=tmp_path)
    done = run(node, tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert f"the package @mcp-gangway/{HERE}, the program for " in done.stderr
    assert ", is not installed." in done.stderr
    assert "--omit=optional" in done.stderr and "package-lock.json" in done.stderr
    if HERE.startswith("linux"):
        libc = r"with musl" if HERE.endswith("-musl") else r"with glibc \d+\.\d+"
        assert re.search(libc, done.stderr), done.stderr
    follow_advice(done.stderr, npm, tmp_path)
    assert run(node, tmp_path, "--version").stdout == f"mcp-gangway {VERSION}\n"


def test_a_lock_file_of_another_platform_is_explained_and_the_advice_helps(
    node: Path, npm: Npm, tmp_path: Path
) -> None:
    other = PLATFORMS["darwin-arm64" if HERE != "darwin-arm64" else "linux-x64"]
    npm("install", f"mcp-gangway@{VERSION}", *other.options, cwd=tmp_path)
    done = run(node, tmp_path)
    assert done.returncode == 1
    assert f", is not installed, but {other.package} is." in done.stderr
    follow_advice(done.stderr, npm, tmp_path)
    assert run(node, tmp_path, "--version").stdout == f"mcp-gangway {VERSION}\n"


def follow_advice(text: str, npm: Npm, folder: Path) -> None:
    """Does what the launcher's error says."""
    advice = re.search(r"in (.*), remove node_modules and package-lock.json, then run: npm (install .*)", text)
    assert advice and Path(advice[1]).samefile(folder), text
    shutil.rmtree(folder / "node_modules")
    (folder / "package-lock.json").unlink()
    npm(*advice[2].split(), cwd=folder)


def test_a_global_installation_without_the_program_is_explained_and_the_advice_helps(npm: Npm, tmp_path: Path) -> None:
    npm.env["npm_config_prefix"] = str(tmp_path)
    npm("install", "--global", f"mcp-gangway@{VERSION}", cwd=tmp_path)
    shutil.rmtree(tmp_path / "lib/node_modules/mcp-gangway/node_modules")
    command: list[str | Path] = [tmp_path / "bin/mcp-gangway", "--version"]
    done = subprocess.run(command, env=npm.env, capture_output=True, text=True, timeout=LIMIT)
    advice = re.search(r"npm (install --global .*) mcp-gangway", done.stderr)
    assert done.returncode == 1 and advice, done.stderr
    npm(*advice[1].split(), f"mcp-gangway@{VERSION}", cwd=tmp_path)
    assert subprocess.check_output(command, env=npm.env, text=True) == f"mcp-gangway {VERSION}\n"


def test_npx_without_optional_packages_is_explained_and_the_advice_helps(npm: Npm, tmp_path: Path) -> None:
    env = npm.env | {"npm_config_omit": "optional", "npm_config_yes": "true"}
    command = ["npx", f"mcp-gangway@{VERSION}", "--version"]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 1, done.stderr
    advice = re.search("What to do: remove (.*), then run: npx (--include=optional) mcp-gangway", done.stderr)
    assert advice, done.stderr
    shutil.rmtree(advice[1])
    command.insert(1, advice[2])
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT)
    assert done.stdout == f"mcp-gangway {VERSION}\n", done.stderr


@needs_glibc
def test_of_two_c_libraries_the_systems_is_used(node: Path, installed: Path) -> None:
    replace_program(installed, "echo glibc", HERE)
    replace_program(installed, "echo musl", MUSL)
    assert run(node, installed).stdout == "glibc\n"
    # A static program runs here too.
    shutil.rmtree(installed / "node_modules/@mcp-gangway" / HERE)
    assert run(node, installed).stdout == "musl\n"


@needs_glibc
def test_a_system_without_the_glibc_loader_needs_the_static_program(node: Path, npm: Npm, tmp_path: Path) -> None:
    npm("install", f"mcp-gangway@{VERSION}", cwd=tmp_path)
    preload = tmp_path / "preload.js"
    preload.write_text(
        "const fs = require('fs'), real = fs.existsSync;"
        "fs.existsSync = (path) => !/\\/ld-linux-/.test(path) && real(path);"
    )
    env = {"NODE_OPTIONS": f"--require={preload}"}
    done = run(node, tmp_path, env=env)
    assert done.returncode == 1
    assert f"the package @mcp-gangway/{MUSL}, " in done.stderr and f"but @mcp-gangway/{HERE} is." in done.stderr
    follow_advice(done.stderr, npm, tmp_path)
    assert platform_packages(tmp_path) == [MUSL]
    replace_program(tmp_path, "echo musl", MUSL)
    assert run(node, tmp_path, env=env).stdout == "musl\n"


def test_an_unknown_platform_is_explained(node: Path, original: Path, tmp_path: Path) -> None:
    preload = tmp_path / "preload.js"
    preload.write_text("Object.defineProperty(process, 'platform', { value: 'freebsd' });")
    done = run(node, original, env={"NODE_OPTIONS": f"--require={preload}"})
    assert done.returncode == 1 and done.stdout == ""
    assert "there is no program for freebsd-" in done.stderr and "cargo install mcp-gangway" in done.stderr
    assert all(platform.package in done.stderr for platform in PLATFORMS.values())


def test_a_program_that_cannot_start_is_reported(node: Path, installed: Path) -> None:
    program = installed / "node_modules/@mcp-gangway" / HERE / "mcp-gangway"
    program.chmod(0o644)
    done = run(node, installed)
    assert done.returncode == 1
    assert done.stderr.startswith(f"mcp-gangway: cannot start {program.resolve()}: "), done.stderr
    assert len(done.stderr.splitlines()) == 1
