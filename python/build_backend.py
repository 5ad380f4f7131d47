"""Builds the package: first the native command, then the rest with maturin. These are maturin's build hooks.

Rule: the command in a wheel is the program that cargo builds, not a script that starts an interpreter.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import maturin
from maturin import get_requires_for_build_editable as get_requires_for_build_editable
from maturin import get_requires_for_build_sdist as get_requires_for_build_sdist
from maturin import get_requires_for_build_wheel as get_requires_for_build_wheel

ROOT = Path(__file__).resolve().parent.parent
NAME = "mcp-gangway.exe" if os.name == "nt" else "mcp-gangway"


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    _build_command()
    return maturin.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    _build_command()
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


def _build_command() -> None:
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()
    subprocess.run(
        ["cargo", "build", "--locked", "--release", "--package", "mcp-gangway", "--target-dir", target],
        cwd=ROOT,
        check=True,
    )
    shutil.copy2(target / "release" / NAME, _scripts() / NAME)


def _scripts() -> Path:
    """Creates and returns the folder of the package's commands. Maturin always requires it."""
    folder = ROOT / "target" / "python-data" / "scripts"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
