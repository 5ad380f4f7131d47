"""Translates the command line of `mcpgateway.wrapper` for the native command.

Rule: `python -m mcp_gangway.wrapper` imports only this before the native command takes over, so it
imports nothing that takes time.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import NoReturn
from urllib.parse import urlsplit, urlunsplit


def run() -> NoReturn:
    """Replaces this process with the native command, with a translated command line."""
    from mcp_gangway._program import exec_bridge

    exec_bridge(*bridge_command(sys.argv[1:], os.environ))


def bridge_command(arguments: list[str], environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Translates the original's command line for the native command.

    Args:
        arguments: The command line without the program's name. Options that only the native command
            has are passed on unchanged, as is a positional URL.
        environ: The environment variables.

    Returns:
        The arguments and the environment for `mcp-gangway`. Where the original's defaults differ,
        the environment sets them. An address gets the original's suffix `/mcp/`; only its path is
        changed.

    Raises:
        SystemExit: With 2, after a line on stderr, if one of the original's options has no value.
    """
    parser = OneLineParser(add_help=False, argument_default=argparse.SUPPRESS)
    for option in ("--url", "--auth", "--timeout", "--log-level"):
        parser.add_argument(option)
    typed, rest = parser.parse_known_args(arguments)
    environment = dict(environ)
    given: dict[str, str] = vars(typed)

    if given.get("url"):
        given["url"] = _endpoint(given["url"], rest, environment)
    elif environment.get("MCP_SERVER_URL"):
        environment["MCP_SERVER_URL"] = _endpoint(environment["MCP_SERVER_URL"], rest, environment)
    if given.get("auth") == "":
        # In the original this means no header, regardless of the variable.
        del given["auth"]
        environment.pop("MCP_AUTH", None)
    if given.get("timeout") == "":
        del given["timeout"]
    for name, default in (("MCP_TOOL_CALL_TIMEOUT", "60"), ("CONCURRENCY", "10")):
        if not environment.get(name):
            environment[name] = default
    if "log_level" not in given:
        if environment.get("MCP_WRAPPER_LOG_LEVEL") == "":
            given["log_level"] = "off"
        elif not (environment.get("MCP_WRAPPER_LOG_LEVEL") or environment.get("LOG_LEVEL")):
            environment["MCP_WRAPPER_LOG_LEVEL"] = "INFO"
    typed_again = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    return typed_again + rest, environment


class OneLineParser(argparse.ArgumentParser):
    """Reports errors in one line."""

    def error(self, message: str) -> NoReturn:
        print(f"Error: {message}", file=sys.stderr)
        sys.exit(2)


def _endpoint(url: str, rest: list[str], environ: Mapping[str, str]) -> str:
    """Returns the address that the original posts to. Changes only the path, and only if no
    transport is set."""
    if environ.get("MCP_TRANSPORT") or any(option.startswith("--transport") for option in rest):
        return url
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        # The native command reports the error.
        return url
    last = parts.path.rstrip("/").rpartition("/")[2]
    if not (parts.scheme and parts.netloc) or last in {"mcp", "sse"}:
        # The native command handles `sse` itself.
        return url
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + "/mcp/"))
