"""What the scripts that make packages share: versions, platforms, times, and archives with equal bytes for equal input.

The version is the workspace's in Cargo.toml, and the platforms are the lines of packaging/platforms; no script repeats
either. Everything is made below target/dist. Times in packages come from SOURCE_DATE_EPOCH, otherwise from the last
commit.
"""

import datetime
import gzip
import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "target" / "dist"
PACKAGE = "mcp-gangway"


class Failure(Exception):
    """A message for the maintainer that says what to do. Scripts print it and exit with status 1."""


@dataclass(frozen=True)
class Platform:
    """A line of packaging/platforms."""

    name: str
    target: str
    os: str
    cpu: str
    libc: str
    wheel: str
    extension: str

    @property
    def command(self) -> str:
        """The file name of the command."""
        return f"{PACKAGE}.exe" if self.os == "win32" else PACKAGE

    @property
    def binary(self) -> Path:
        """Where scripts/build-platform puts the command."""
        return DIST / "bin" / self.name / self.command

    @property
    def archive(self) -> str:
        """The name of the archive without its extension, which is also the name of the folder in it."""
        return f"{PACKAGE}-{version()}-{self.name}"


@dataclass(frozen=True)
class Entry:
    """A file, or with `data=None` a folder, in a package."""

    path: str
    data: bytes | None
    mode: int = 0o644
    owner: int = 0


def main(run) -> None:
    """Runs a script's function and ends the process with its status: failures are one line, not a traceback."""
    try:
        sys.exit(run())
    except Failure as failure:
        sys.exit(f"{Path(sys.argv[0]).name}: {failure}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error.cmd[0]} failed with status {error.returncode}")


def manifest() -> dict:
    """Returns [workspace.package] of Cargo.toml."""
    return tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]


def version() -> str:
    """Returns the version of the release."""
    return manifest()["version"]


def epoch() -> int:
    """Returns the time that all files in packages have, in seconds since 1970."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    return int(output("git", "log", "-1", "--format=%ct"))


def date() -> datetime.datetime:
    """Returns `epoch` as a time in UTC."""
    return datetime.datetime.fromtimestamp(epoch(), datetime.UTC)


def all_platforms() -> list[Platform]:
    """Returns the platforms in the order of packaging/platforms."""
    lines = (line.partition("#")[0].split() for line in (ROOT / "packaging" / "platforms").read_text().splitlines())
    return [Platform(*columns) for columns in lines if columns]


def chosen_platforms(names: list[str], among: Iterable[Platform] | None = None) -> list[Platform]:
    """Returns the named platforms, or all that have a binary. Says on stderr which are missing."""
    known = {one.name: one for one in (all_platforms() if among is None else among)}
    if unknown := [name for name in names if name not in known]:
        raise Failure(f"{', '.join(unknown)}: not among the platforms {', '.join(known)}")
    wanted = [known[name] for name in names] or list(known.values())
    missing = [one.name for one in wanted if not one.binary.is_file()]
    if missing and names:
        raise Failure(f"no binary for {', '.join(missing)}: run scripts/build-platform {' '.join(missing)}")
    if missing:
        print(f"MISSING, so not packed: {', '.join(missing)} (scripts/build-platform makes them)", file=sys.stderr)
    found = [one for one in wanted if one.binary.is_file()]
    if not found:
        raise Failure("there is no binary in target/dist/bin: run scripts/build-platform")
    return found


def host_binary() -> Path:
    """Returns a binary in target/dist/bin that runs on this machine."""
    system = {"Linux": "linux", "Darwin": "darwin", "Windows": "win32"}.get(platform.system(), "")
    cpu = {"x86_64": "x64", "AMD64": "x64", "aarch64": "arm64", "arm64": "arm64", "ARM64": "arm64"}.get(
        platform.machine(), ""
    )
    fitting = [one for one in all_platforms() if (one.os, one.cpu) == (system, cpu)]
    for one in fitting:
        if one.binary.is_file():
            return one.binary
    raise Failure(
        f"no binary in target/dist/bin runs here: run scripts/build-platform {fitting[0].name if fitting else ''}"
    )


def output(*command: str | Path, **options) -> str:
    """Runs a command in the repository's root and returns what it prints."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, **options).stdout


def bash(script: str, *arguments: str, **options) -> str:
    """Runs a shell script of the repository and returns what it prints."""
    # Windows would take its own bash, which is that of another system.
    return output(shutil.which("bash") or "bash", script, *arguments, **options)


def tool(name: str) -> str:
    """Returns the path of a tool of packaging/install-tools, which installs it if this version is missing."""
    return bash("packaging/install-tools", name).strip()


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fresh(folder: Path) -> Path:
    """Empties and returns a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def with_folders(entries: Iterable[Entry]) -> list[Entry]:
    """Adds the folders that the entries are in, and sorts everything by path."""
    named = {entry.path: entry for entry in entries}
    for path in list(named):
        for parent in Path(path).parents:
            if str(parent) != ".":
                named.setdefault(str(parent), Entry(str(parent), None, 0o755))
    return [named[path] for path in sorted(named)]


def tar(entries: Iterable[Entry]) -> bytes:
    """Returns a tar archive."""
    buffer = io.BytesIO()
    # The GNU format has no header with the time of packing, and short names need no extension of it.
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for entry in with_folders(entries):
            info = tarfile.TarInfo(entry.path)
            info.mtime, info.mode, info.uid, info.gid = epoch(), entry.mode, entry.owner, entry.owner
            if entry.data is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(entry.data)
            archive.addfile(info, io.BytesIO(entry.data or b""))
    return buffer.getvalue()


def gz(data: bytes) -> bytes:
    """Compresses with gzip, without a name or a time in the header."""
    return gzip.compress(data, compresslevel=9, mtime=0)


def zipped(entries: Iterable[Entry]) -> bytes:
    """Returns a zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for entry in with_folders(entries):
            folder = entry.data is None
            info = zipfile.ZipInfo(entry.path + "/" * folder, date().timetuple()[:6])
            # Of Unix, whatever system packs: the attributes are the mode, and the bit that says "folder" on Windows.
            info.create_system = 3
            info.external_attr = ((0o040000 if folder else 0o100000) | entry.mode) << 16 | 0x10 * folder
            info.compress_type = zipfile.ZIP_STORED if folder else zipfile.ZIP_DEFLATED
            archive.writestr(info, entry.data or b"")
    return buffer.getvalue()
