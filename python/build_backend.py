"""Builds the package: first the native command, then the rest with maturin. These are maturin's build hooks.

    MCP_GANGWAY_COMMAND=PATH     take this command, and build none
    CARGO_BUILD_TARGET=TARGET    build command and module for this Rust target; `--target TARGET` in
                                 MATURIN_PEP517_ARGS or in `--config-settings build-args=…` does the same

Rule: the command in a wheel is the one program that cargo built for the wheel's platform, not a script that starts an
interpreter. scripts/package-wheels makes the wheels of a release through these hooks.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import maturin
from maturin import get_requires_for_build_editable as get_requires_for_build_editable
from maturin import get_requires_for_build_sdist as get_requires_for_build_sdist
from maturin import get_requires_for_build_wheel as get_requires_for_build_wheel

ROOT = Path(__file__).resolve().parent.parent


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    add_command(config_settings)
    return maturin.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    add_command(config_settings)
    return maturin.build_editable(wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    _scripts()
    return maturin.build_sdist(sdist_directory, config_settings)


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Any = None) -> str:
    _scripts()
    return maturin.prepare_metadata_for_build_wheel(metadata_directory, config_settings)


def prepare_metadata_for_build_editable(metadata_directory: str, config_settings: Any = None) -> str:
    _scripts()
    return maturin.prepare_metadata_for_build_editable(metadata_directory, config_settings)


def add_command(config_settings: Any = None) -> None:
    """Makes the command the only file in the folder of the package's commands."""
    given = os.environ.get("MCP_GANGWAY_COMMAND")
    command = Path(given).resolve() if given else _build_command(_target(config_settings))
    if command.name not in ("mcp-gangway", "mcp-gangway.exe"):
        raise SystemExit(f"MCP_GANGWAY_COMMAND={given}: the file must be called mcp-gangway or mcp-gangway.exe")
    for other in _scripts().iterdir():
        other.unlink()
    copy = Path(shutil.copyfile(command, _scripts() / command.name))
    copy.chmod(0o755)


def _build_command(target: str | None) -> Path:
    """Builds the command and returns what cargo says is its path, which depends on the target and on settings."""
    arguments = ["--locked", "--release", "--package", "mcp-gangway", "--bin", "mcp-gangway"]
    if target:
        arguments += ["--target", target]
    built = subprocess.run(
        ["cargo", "build", *arguments, "--message-format", "json-render-diagnostics"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    messages = [json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")]
    [path] = {message["executable"] for message in messages if message.get("executable")}
    return Path(path)


def _target(config_settings: Any) -> str | None:
    """Returns the target among maturin's arguments. Cargo itself looks for one in the environment."""
    arguments = maturin.get_maturin_pep517_args(config_settings)
    for argument, value in pairwise([*arguments, None]):
        if argument == "--target":
            return value
        if argument.startswith("--target="):
            return argument.removeprefix("--target=")
    return None


def _scripts() -> Path:
    """Creates and returns the folder of the package's commands. Maturin always requires it."""
    folder = ROOT / "target" / "python-data" / "scripts"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
