"""The files that packages have beside the command: manual, completions, licences, and the bill of materials.

Rule: what is said about a platform's binary is computed for the release's Rust target of that platform, from
Cargo.lock; it does not depend on the machine that packs.
"""

import hashlib
import html.parser
import json
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import common
from common import PACKAGE, ROOT, Failure, Platform

# Name of the file in packages, by shell.
COMPLETIONS = {
    "bash": f"{PACKAGE}.bash",
    "zsh": f"_{PACKAGE}",
    "fish": f"{PACKAGE}.fish",
    "powershell": f"_{PACKAGE}.ps1",
}
RULE = "\n\n" + "=" * 100 + "\n\n"


def manual() -> bytes:
    """Returns the manual page, in roff."""
    return _printed("man")


def completions() -> dict[str, bytes]:
    """Returns the completions by file name."""
    return {name: _printed("completions", shell) for shell, name in COMPLETIONS.items()}


@cache
def _printed(*arguments: str) -> bytes:
    """Returns what the command prints. The texts are those of each platform, so a binary that runs here prints them."""
    binary = common.host_binary()
    result = subprocess.run([binary, *arguments], stdin=subprocess.DEVNULL, capture_output=True)
    if result.returncode or not result.stdout:
        command = f"{binary.relative_to(ROOT)} {' '.join(arguments)}"
        raise Failure(f"`{command}` failed; is the binary of this version? {result.stderr.decode()}")
    return result.stdout


def third_party(platform: Platform) -> str:
    """Returns the licences of all that is linked into the platform's binary and is not of this project."""
    wanted = linked(platform)
    parts = []
    found = set()
    for licence in _licences():
        users = sorted(wanted & licence["crates"])
        found.update(users)
        if users:
            parts.append((users, f"{licence['name']}: {', '.join(users)}\n\n{licence['text']}"))
    if missing := wanted - found:
        raise Failure(f"no licence was found for {', '.join(sorted(missing))}, which {platform.target} links")
    head = f"{PACKAGE} {common.version()} for {platform.target} contains code of other projects, under these licences."
    library = f"The Rust standard library\n\n{_library_notice()}"
    musl = [f"musl libc\n\n{(ROOT / 'packaging' / 'musl.txt').read_text().strip()}"] if platform.libc == "musl" else []
    return RULE.join([head, *(text for _, text in sorted(parts)), library, *musl]) + "\n"


def linked(platform: Platform) -> set[str]:
    """Returns the crates of other projects that are linked into the platform's binary, as "name version"."""
    tree = common.output(
        *["cargo", "tree", "--locked", "--package", PACKAGE, "--target", platform.target],
        *["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"],
    )
    # Crates of this project have their path behind the version.
    lines = {line.removesuffix(" (*)") for line in tree.splitlines() if line}
    return {line.replace(" v", " ", 1) for line in lines if "(" not in line}


@cache
def _licences() -> list[dict]:
    """Returns the licences of the crates that any platform links: name, text and crates.

    To read the files of all crates takes minutes, so what cargo-about found is kept for equal lock files and settings.
    """
    inputs = [
        ROOT / "Cargo.lock",
        ROOT / "about.toml",
        ROOT / "packaging" / "install-tools",
        ROOT / "packaging" / "platforms",
    ]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()[:16]
    kept = ROOT / "target" / "tools" / f"licences-{key}.json"
    if not kept.is_file():
        metadata()
        targets = [option for one in common.all_platforms() for option in ("--target", one.target)]
        command = [common.tool("cargo-about"), "generate", "--frozen", "--fail", "--format", "json", *targets]
        files = ["--manifest-path", ROOT / "crates" / "cli" / "Cargo.toml", "--config", ROOT / "about.toml"]
        # In two steps, so that another process never reads a part.
        unfinished = kept.with_suffix(f".{os.getpid()}")
        unfinished.write_text(common.output(*command, *files), encoding="utf-8")
        unfinished.replace(kept)
    return [
        {
            "name": one["name"],
            "text": one["text"].replace("\r\n", "\n").strip("\n"),
            "crates": {f"{used['crate']['name']} {used['crate']['version']}" for used in one["used_by"]},
        }
        for one in json.loads(kept.read_text(encoding="utf-8"))["licenses"]
    ]


@cache
def metadata() -> str:
    """Returns `cargo metadata`, and sees to it that the sources of all dependencies of all platforms are here."""
    common.output("cargo", "fetch", "--locked")
    return common.output("cargo", "metadata", "--locked", "--format-version", "1")


@cache
def _library_notice() -> str:
    """Returns the notices of the standard library, as the compiler brings them."""
    sysroot = Path(common.output(os.environ.get("RUSTC", "rustc"), "--print", "sysroot").strip())
    path = sysroot / "share" / "doc" / "rust" / "COPYRIGHT-library.html"
    if not path.is_file():
        raise Failure(
            f"{path} is missing: use a toolchain of rustup, which brings the licences of the standard library"
        )
    reader = _Text()
    reader.feed(path.read_text(encoding="utf-8"))
    lines = [line.rstrip() for line in "".join(reader.parts).splitlines()]
    return "\n".join(line for line, after in zip(lines, [*lines[1:], ""], strict=True) if line or after).strip()


class _Text(html.parser.HTMLParser):
    """Collects the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.skipping = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.skipping = tag in ("title", "style", "script")

    def handle_data(self, data: str) -> None:
        if not self.skipping:
            self.parts.append(data)


def bill_of_materials(platform: Platform) -> str:
    """Returns the software bill of materials of the platform's binary, in CycloneDX's JSON."""
    metadata()
    with tempfile.TemporaryDirectory() as folder:
        # The tool writes beside each Cargo.toml, so it gets a copy.
        for name in ("Cargo.toml", "Cargo.lock", "README.md", "crates", "bench"):
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, Path(folder) / name)
        manifest = Path(folder) / "crates" / "cli" / "Cargo.toml"
        subprocess.run(
            [
                *[
                    common.tool("cargo-cyclonedx"),
                    "cyclonedx",
                    "--manifest-path",
                    manifest,
                    "--target",
                    platform.target,
                ],
                *[
                    "--format",
                    "json",
                    "--spec-version",
                    "1.5",
                    "--no-build-deps",
                    "--override-filename",
                    "bom",
                    "--quiet",
                ],
            ],
            check=True,
            cwd=folder,
            env=os.environ | {"SOURCE_DATE_EPOCH": str(common.epoch()), "CARGO_NET_OFFLINE": "true"},
        )
        # Names of members have the folder's path in them.
        text = (
            (manifest.parent / "bom.json").read_text(encoding="utf-8").replace(f"file://{folder}", f"file:///{PACKAGE}")
        )
        if folder in text:
            raise Failure(f"the bill of materials of {platform.name} names {folder}")
    bill = json.loads(text)
    # The tool resolves features for the workspace with its tests, and lists macros, which are not linked.
    wanted = linked(platform) | {f"{name} {common.version()}" for name in (PACKAGE, f"{PACKAGE}-core")}
    bill["components"] = [one for one in bill["components"] if f"{one['name']} {one['version']}" in wanted]
    refs = {one["bom-ref"] for one in [bill["metadata"]["component"], *bill["components"]]}
    bill["dependencies"] = [
        one | {"dependsOn": sorted(refs & set(one.get("dependsOn", ())))}
        for one in bill["dependencies"]
        if one["ref"] in refs
    ]
    return json.dumps(bill, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
