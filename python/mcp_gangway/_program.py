"""Finds and runs the command ``mcp-gangway``, a native program that is installed with this package.

Rule: the native program replaces the interpreter.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NAME = "mcp-gangway.exe" if os.name == "nt" else "mcp-gangway"


def find() -> Path:
    """Returns the path of the native command.

    Raises:
        FileNotFoundError: The package was installed without it.
    """
    # The commands folder of this installation, then those of ``pip install --user`` and ``--target``.
    folders = [sysconfig.get_path("scripts"), sysconfig.get_path("scripts", f"{os.name}_user")]
    here = Path(__file__).resolve().parent.parent
    folders += [str(here / "bin"), str(here / "Scripts")]
    for folder in folders:
        path = Path(folder) / _NAME
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"the native command {_NAME} is not in {', '.join(folders)}: install the package again, with pip"
    )


def exec_bridge(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> NoReturn:
    """Replaces this process with the command, with these arguments (without its name) and this environment.

    Raises:
        SystemExit: The command is missing. On Windows, where a process cannot be replaced, also when it has ended.
    """
    try:
        command = [str(find()), *arguments]
    except FileNotFoundError as error:
        sys.exit(f"mcp-gangway: {error}")
    variables = dict(os.environ if environment is None else environment)
    if os.name == "nt":
        try:
            sys.exit(subprocess.call(command, env=variables))
        except KeyboardInterrupt:
            sys.exit(0)
    os.execve(command[0], command, variables)
