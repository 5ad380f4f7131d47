"""Tests the Debian packages of scripts/package-deb: with lintian, and with dpkg in a root of their own.

Rule: the packages that are in target/dist/deb are tested, and no others are made.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, Server, converse, this_platform

sys.path.insert(0, str(REPOSITORY / "packaging"))
import common
from common import Platform

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="dpkg is on Linux only")
ARCHITECTURES = {"x64": "amd64", "arm64": "arm64"}


def path_of(platform: Platform) -> Path:
    return common.DIST / "deb" / f"mcp-gangway_{common.version()}-1_{ARCHITECTURES[platform.cpu]}.deb"


PACKED = [one for one in common.all_platforms() if one.libc == "glibc" and path_of(one).is_file()]
each = pytest.mark.parametrize("platform", PACKED, ids=lambda platform: platform.name)


def needed(program: str) -> str:
    """Returns the path of a program that packaging/setup-tests installs."""
    path = shutil.which(program)
    assert path, f"{program} is missing: run packaging/setup-tests as root, or install it"
    return path


def field(platform: Platform, name: str) -> str:
    return subprocess.run(
        ["dpkg-deb", "--field", path_of(platform), name], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_there_is_a_package_for_this_machine() -> None:
    assert this_platform() in [one.name for one in PACKED], "run scripts/package-deb first"


@each
def test_lintian_finds_no_error(platform: Platform) -> None:
    said = subprocess.run(
        [needed("lintian"), "--allow-root", "--fail-on", "error", path_of(platform)], capture_output=True, text=True
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert not [line for line in said.stdout.splitlines() if line.startswith("E:")]


@each
def test_the_package_needs_no_newer_c_library_than_promised(platform: Platform) -> None:
    promised = tuple(map(int, re.findall(r"\d+", platform.wheel.partition("_")[2])[:2]))
    needs = re.search(r"libc6 \(>= ([\d.]+)\)", field(platform, "Depends"))
    assert needs and tuple(map(int, needs[1].split("."))) <= promised, field(platform, "Depends")
    assert field(platform, "Architecture") == ARCHITECTURES[platform.cpu]
    assert field(platform, "Version") == f"{common.version()}-1"


def test_dpkg_installs_verifies_and_purges_the_package(tmp_path: Path, server: Server) -> None:
    (platform,) = (one for one in PACKED if one.name == this_platform())
    root = tmp_path / "root"
    for folder in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"):
        (root / folder).mkdir(parents=True)
    # The root has the C library of this machine as an installed package, so the dependencies are checked too.
    libraries = [name for name in ("libc6", "libgcc-s1", "gcc-12-base", "libcrypt1")]
    known = subprocess.run(["dpkg-query", "--status", *libraries], capture_output=True, text=True).stdout
    (root / "var/lib/dpkg/status").write_text(known.rstrip() + "\n")
    dpkg = ["dpkg", f"--root={root}", "--force-not-root", "--force-script-chrootless", f"--log={tmp_path / 'log'}"]
    done = subprocess.run([*dpkg, "--install", path_of(platform)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    command = root / "usr/bin/mcp-gangway"
    said = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["mcp-gangway", common.version()]
    converse([command, server.url], server)
    verified = subprocess.run([*dpkg, "--verify", "mcp-gangway"], capture_output=True, text=True)
    assert verified.returncode == 0 and not verified.stdout, verified.stdout

    subprocess.run([*dpkg, "--purge", "mcp-gangway"], check=True, capture_output=True)
    assert not command.exists()
    left = [path for path in root.rglob("*mcp-gangway*") if "var/lib/dpkg" not in str(path)]
    assert not left
