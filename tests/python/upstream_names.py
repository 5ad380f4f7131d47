"""A pytest plugin that gives upstream's tests our modules under upstream's names; `scripts/upstream-tests` loads it.

Rule: `mcpgateway` and each module that those tests import below it is one of our modules or a stand-in. No other module
of that name can be imported, so no test can reach upstream's own code, even if it is installed.
"""

from __future__ import annotations

import sys
import types

import mcp_gangway.retry
import mcp_gangway.wrapper


def _package(name: str) -> types.ModuleType:
    package = types.ModuleType(name)
    package.__path__ = []
    return package


def _install(name: str, module: types.ModuleType) -> None:
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)


_config = types.ModuleType("mcpgateway.config")
_config.settings = mcp_gangway.retry.settings  # type: ignore[attr-defined]

_install("mcpgateway", _package("mcpgateway"))
_install("mcpgateway.utils", _package("mcpgateway.utils"))
_install("mcpgateway.config", _config)
_install("mcpgateway.wrapper", mcp_gangway.wrapper)
_install("mcpgateway.utils.retry_manager", mcp_gangway.retry)
