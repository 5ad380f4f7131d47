"""Tests the archives of scripts/package-archives, and the manifests of scripts/package-manifests that point to them.

Rule: the archives that are in target/dist/archives are tested, and no others are made. The command is run for each
platform that this machine can run: its own, static ones, and with qemu those for the other processor on Linux.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from conftest import REPOSITORY, Server, converse, this_platform

sys.path.insert(0, str(REPOSITORY / "packaging"))
import common
import documents
from common import Platform

DIST = REPOSITORY / "target" / "dist"
MANIFESTS = DIST / "manifests"


def path_of(platform: Platform) -> Path:
    return DIST / "archives" / f"{platform.archive}.{platform.extension}"


PACKED = [platform for platform in common.all_platforms() if path_of(platform).is_file()]


def emulator(platform: Platform) -> list[str] | None:
    """Returns what to put before the platform's command to run it here, or None if nothing would help."""
    here = this_platform()
    if platform.name.removesuffix("-musl") == here.removesuffix("-musl") and platform.libc in (
        "musl",
        "-",
        common_libc(),
    ):
        return []
    qemu = shutil.which({"x64": "qemu-x86_64-static", "arm64": "qemu-aarch64-static"}[platform.cpu])
    if platform.os == "linux" and sys.platform == "linux" and qemu:
        # The root has the C library of the other processor, if it is installed.
        root = {"x64": "/usr/x86_64-linux-gnu", "arm64": "/usr/aarch64-linux-gnu"}[platform.cpu]
        if platform.libc == "musl" or Path(root).is_dir():
            return [qemu, "-L", root]
    return None


def common_libc() -> str:
    """Returns the C library of this machine in the words of packaging/platforms."""
    return "musl" if this_platform().endswith("-musl") else "glibc"


RUNNABLE = [platform for platform in PACKED if emulator(platform) is not None]
# The programs that judge manual and completions come from packaging/setup-tests, and so from Debian or Ubuntu.
on_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="the files are the same on each system; Linux checks them"
)
each_packed = pytest.mark.parametrize("platform", PACKED, ids=lambda platform: platform.name)
each_runnable = pytest.mark.parametrize("platform", RUNNABLE, ids=lambda platform: platform.name)


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    mode: int
    owner: tuple[int, int, str, str]
    time: object
    data: bytes


def members(platform: Platform) -> list[Member]:
    """Returns the files and folders in the platform's archive."""
    path = path_of(platform)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return [
                Member(one.filename, one.external_attr >> 16 & 0o7777, (0, 0, "", ""), one.date_time, archive.read(one))
                for one in archive.infolist()
            ]
    with tarfile.open(path) as archive:
        found = []
        for one in archive.getmembers():
            file = archive.extractfile(one)
            owner = (one.uid, one.gid, one.uname, one.gname)
            found.append(Member(one.name + "/" * one.isdir(), one.mode, owner, one.mtime, file.read() if file else b""))
        return found


def unpacked(platform: Platform, folder: Path) -> Path:
    """Unpacks the archive with the programs that users have, and returns the folder that was in it."""
    path = path_of(platform)
    if path.suffix == ".zip" and sys.platform != "win32":
        subprocess.run(["unzip", "-q", path, "-d", folder], check=True)
    else:
        subprocess.run(["tar", "-xf", path, "-C", folder], check=True)
    (found,) = folder.iterdir()
    assert found.name == platform.archive
    return found


def needed(program: str) -> str:
    """Returns the path of a program that packaging/setup-tests installs."""
    path = shutil.which(program)
    assert path, f"{program} is missing: run packaging/setup-tests as root, or install it"
    return path


def test_there_are_archives_for_this_machine() -> None:
    assert RUNNABLE, "run scripts/package-archives first"


@each_packed
def test_an_archive_has_exactly_the_documented_files_in_one_folder(platform: Platform) -> None:
    files = ["LICENSE", "README.md", "THIRD-PARTY-LICENSES.txt", "completions/", "mcp-gangway.1", platform.command]
    files += [f"completions/{name}" for name in documents.COMPLETIONS.values()]
    names = [member.name for member in members(platform)]
    assert sorted(names) == sorted([f"{platform.archive}/", *(f"{platform.archive}/{name}" for name in files)])


@each_packed
def test_an_archive_tells_nothing_about_the_machine_that_packed_it(platform: Platform) -> None:
    content = members(platform)
    assert {member.owner for member in content} == {(0, 0, "", "")}
    assert len({member.time for member in content}) == 1
    executable = {f"{platform.archive}/{platform.command}"}
    for member in content:
        runs = member.name in executable or member.name.endswith("/")
        assert member.mode == (0o755 if runs else 0o644), member.name
        if not member.name.endswith(platform.command):
            assert str(REPOSITORY).encode() not in member.data and str(Path.home()).encode() + b"/." not in member.data
    if platform.extension == "tar.gz":
        # The header of gzip: no file name, and the time 0.
        assert path_of(platform).read_bytes()[3:8] == bytes(5)


@each_runnable
def test_the_command_of_an_archive_runs(platform: Platform, tmp_path: Path, server: Server) -> None:
    command = [*emulator(platform), unpacked(platform, tmp_path) / platform.command]
    said = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["mcp-gangway", common.version()]
    converse([*command, server.url], server)


@on_linux
@each_packed
def test_the_manual_is_well_formed(platform: Platform, tmp_path: Path) -> None:
    page = unpacked(platform, tmp_path) / "mcp-gangway.1"
    # Errors mean that text is lost; notes about style, such as a missing date, are left out.
    said = subprocess.run([needed("mandoc"), "-T", "lint", "-W", "error", page], capture_output=True, text=True)
    assert not said.stdout, said.stdout
    text = subprocess.run([needed("mandoc"), "-T", "ascii", page], capture_output=True, text=True, check=True).stdout
    text = re.sub(".\b", "", text)
    help_text = subprocess.run([common.host_binary(), "--help"], capture_output=True, text=True, check=True).stdout
    options = set(re.findall(r"^ +(?:-\w, )?(--[a-z0-9-]+)", help_text, re.MULTILINE)) - {"--version"}
    assert options and not [option for option in options if option not in text]


@on_linux
@each_packed
def test_the_shells_accept_the_completions(platform: Platform, tmp_path: Path) -> None:
    folder = unpacked(platform, tmp_path) / "completions"
    for shell, options, name in [("bash", ["-n"], "bash"), ("zsh", ["-n"], "zsh"), ("fish", ["--no-execute"], "fish")]:
        subprocess.run([needed(shell), *options, folder / documents.COMPLETIONS[name]], check=True)


@on_linux
@each_runnable
def test_bash_completes_options_of_the_unpacked_command(platform: Platform, tmp_path: Path) -> None:
    if emulator(platform):
        pytest.skip("the completion starts the command itself, so only without an emulator")
    folder = unpacked(platform, tmp_path)
    script = (
        'source "$1/completions/mcp-gangway.bash"; COMP_WORDS=("$1/mcp-gangway" --time); COMP_CWORD=1\n'
        'function=$(complete -p mcp-gangway | sed "s/.*-F \\([^ ]*\\).*/\\1/")\n'
        '"$function" "$1/mcp-gangway" --time "$1/mcp-gangway"; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    said = subprocess.run([needed("bash"), "-c", script, "bash", folder], capture_output=True, text=True, check=True)
    assert "--timeout" in said.stdout.split(), said


@each_packed
def test_the_licences_cover_all_that_is_linked(platform: Platform, tmp_path: Path) -> None:
    text = (unpacked(platform, tmp_path) / "THIRD-PARTY-LICENSES.txt").read_text(encoding="utf-8")
    heads = [part.splitlines()[0] for part in text.split("\n" + "=" * 100 + "\n\n")[1:]]
    named = {crate for head in heads for crate in head.partition(": ")[2].split(", ")}
    assert documents.linked(platform) <= named
    assert "The Rust standard library" in heads and ("musl libc" in heads) == (platform.libc == "musl")
    # The build's own record in the binary misses nothing. It also has crates that only write code, or that only tests
    # use.
    recorded = audited(platform.binary)
    assert not recorded or documents.linked(platform) <= recorded


def audited(binary: Path) -> set[str]:
    """Returns the crates of other projects that cargo-auditable recorded in the binary; none without a record."""
    data = binary.read_bytes()
    # The record is compressed, and its place is in a table of the format of each system. So try each beginning.
    for found in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", data):
        try:
            record = json.loads(zlib.decompressobj().decompress(data[found.start() :], 1 << 20))
        except (zlib.error, ValueError):
            continue
        if isinstance(record, dict) and "packages" in record:
            linked = (one for one in record["packages"] if one.get("kind", "runtime") == "runtime")
            return {f"{one['name']} {one['version']}" for one in linked if one["source"] != "local"}
    return set()


@each_packed
def test_the_bill_of_materials_lists_what_is_linked(platform: Platform) -> None:
    text = (DIST / "archives" / f"{platform.archive}.cdx.json").read_text(encoding="utf-8")
    assert str(Path.home()) not in text and "/tmp" not in text and str(REPOSITORY) not in text
    bill = json.loads(text)
    assert bill["bomFormat"] == "CycloneDX" and bill["metadata"]["component"]["name"] == "mcp-gangway"
    assert bill["metadata"]["component"]["version"] == common.version()
    listed = {f"{one['name']} {one['version']}" for one in bill["components"]}
    own = {f"mcp-gangway-core {common.version()}"}
    assert listed == documents.linked(platform) | own
    refs = {bill["metadata"]["component"]["bom-ref"], *(one["bom-ref"] for one in bill["components"])}
    assert {one["ref"] for one in bill["dependencies"]} == refs
    assert {ref for one in bill["dependencies"] for ref in one["dependsOn"]} <= refs


def referenced(text: str) -> list[tuple[str, str]]:
    """Returns name and hash of each archive that a manifest refers to."""
    urls = re.findall(r"/releases/download/v([^/\s\"]+)/([^\s\"]+)[\s\S]*?\b([0-9a-fA-F]{64})\b", text)
    assert {version for version, _, _ in urls} <= {common.version()}
    return [(name, digest) for _, name, digest in urls]


TEMPLATES = REPOSITORY / "packaging" / "manifests"
NAMES = sorted(path.relative_to(TEMPLATES) for path in TEMPLATES.rglob("*.*") if path.is_file())


def platforms_in(manifest: Path) -> set[str]:
    """Returns the platforms that a template names."""
    return set(re.findall(r"@URL ([a-z0-9-]+)@", (TEMPLATES / manifest).read_text(encoding="utf-8")))


@pytest.mark.parametrize("manifest", NAMES, ids=str)
def test_manifests_have_no_blanks_and_the_hashes_of_the_archives(manifest: Path) -> None:
    packed = {platform.name: path_of(platform) for platform in PACKED}
    # Files in one folder belong together.
    together = [name for name in NAMES if name.parent == manifest.parent] if manifest.parent != Path() else [manifest]
    if not any(platforms_in(name) & set(packed) for name in together):
        assert not (MANIFESTS / manifest).exists()
        return
    text = (MANIFESTS / manifest).read_text(encoding="utf-8")
    assert not re.search(r"@[A-Z0-9]+[ @]", text), text
    found = referenced(text)
    assert {name for name, _ in found} == {packed[name].name for name in platforms_in(manifest) & set(packed)}
    for name, digest in found:
        assert hashlib.sha256((DIST / "archives" / name).read_bytes()).hexdigest() == digest.lower(), name


def test_scoop_finds_the_command_in_the_archive() -> None:
    path = MANIFESTS / "mcp-gangway.json"
    archives = {path_of(platform).name: platform for platform in PACKED if platform.os == "win32"}
    if not archives:
        pytest.skip("no archive for Windows was made")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    assert set(manifest["architecture"]) == {{"x64": "64bit", "arm64": "arm64"}[one.cpu] for one in archives.values()}
    for part in manifest["architecture"].values():
        name = part["url"].rpartition("/")[2]
        assert f"{part['extract_dir']}/{manifest['bin']}" in [member.name for member in members(archives[name])]
        # The address of the next version, with this version in it, is this address.
    for cpu, update in manifest["autoupdate"]["architecture"].items():
        if cpu in manifest["architecture"]:
            part = manifest["architecture"][cpu]
            assert update["url"].replace("$version", manifest["version"]) == part["url"]
            assert update["extract_dir"].replace("$version", manifest["version"]) == part["extract_dir"]


def test_winget_finds_the_command_in_the_archive() -> None:
    archives = {path_of(platform).name: platform for platform in PACKED if platform.os == "win32"}
    if not archives:
        pytest.skip("no archive for Windows was made")
    manifests = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((MANIFESTS / "winget").iterdir())]
    assert {one["ManifestType"] for one in manifests} == {"version", "installer", "defaultLocale"}
    assert {(one["PackageIdentifier"], one["PackageVersion"]) for one in manifests} == {
        ("McpGangway.McpGangway", common.version())
    }
    (installer,) = (one for one in manifests if one["ManifestType"] == "installer")
    for part in installer["Installers"]:
        platform = archives[part["InstallerUrl"].rpartition("/")[2]]
        assert part["Architecture"] == platform.cpu
        (nested,) = part["NestedInstallerFiles"]
        assert nested["RelativeFilePath"].replace("\\", "/") in [member.name for member in members(platform)]


# What Homebrew does with a formula, as far as this one needs it: the methods of the class, then `install` in the
# folder that was in the archive, then the block of `test`. Arguments: formula, folder, prefix, system, processor.
BREW = """
require "fileutils"
require "pathname"
FORMULA, FOLDER, PREFIX, SYSTEM, CPU = ARGV
class Place
  def initialize(path) = @path = path
  def install(given)
    FileUtils.mkdir_p @path
    given.is_a?(Hash) ? given.each { |from, to| FileUtils.mv from, "#{@path}/#{to}" } : FileUtils.mv(given, @path)
  end
  def to_s = @path
end
class Formula
  class << self
    attr_reader :said, :check
    def inherited(one) = one.instance_variable_set(:@said, {})
    %i[desc homepage version license url sha256].each do |name|
      define_method(name) { |value = nil| value ? @said[name] = value : @said[name] }
    end
    def on_macos = (yield if SYSTEM == "macos")
    def on_linux = (yield if SYSTEM == "linux")
    def on_arm = (yield if CPU == "arm64")
    def on_intel = (yield if CPU == "x64")
    def test(&block) = @check = block
  end
  { bin: "bin", man1: "share/man/man1", bash_completion: "etc/bash_completion.d", doc: "share/doc/mcp-gangway",
    zsh_completion: "share/zsh/site-functions", fish_completion: "share/fish/vendor_completions.d",
  }.each do |name, path|
    define_method(name) { Place.new("#{PREFIX}/#{path}") }
  end
  def version = self.class.version
  def shell_output(command) = `#{command}`
  def assert_match(part, whole) = whole.include?(part) || abort("#{whole} lacks #{part}")
end
load FORMULA
one = McpGangway.new
Dir.chdir(FOLDER) { one.install }
one.instance_eval(&McpGangway.check)
puts McpGangway.said[:url], McpGangway.said[:sha256], McpGangway.said[:version]
"""


@each_runnable
def test_the_homebrew_formula_installs_the_archive(platform: Platform, tmp_path: Path, server: Server) -> None:
    if emulator(platform) or platform.libc == "musl" or platform.os == "win32":
        pytest.skip("Homebrew has no such platform here")
    (tmp_path / "work").mkdir()
    folder = unpacked(platform, tmp_path / "work")
    prefix = tmp_path / "prefix"
    system = {"linux": "linux", "darwin": "macos"}[platform.os]
    command = [needed("ruby"), "-e", BREW, MANIFESTS / "mcp-gangway.rb", folder, prefix, system, platform.cpu]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 0 and not said.stderr, said
    url, digest, version = said.stdout.split()
    assert url.rpartition("/")[2] == path_of(platform).name and version == common.version()
    assert digest == hashlib.sha256(path_of(platform).read_bytes()).hexdigest()
    assert (prefix / "share/man/man1/mcp-gangway.1").is_file()
    converse([prefix / "bin/mcp-gangway", server.url], server)


def test_equal_entries_make_equal_archives() -> None:
    entries = [common.Entry("a/b", b"one", 0o755), common.Entry("a/c", b"two")]
    assert common.tar(entries) == common.tar(reversed(entries))
    assert common.zipped(entries) == common.zipped(reversed(entries))
    assert gzip.decompress(common.gz(b"one")) == b"one"
