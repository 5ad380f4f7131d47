"""Runs ``python -m mcp_gangway URL`` as the command ``mcp-gangway URL``."""

import sys

from ._program import exec_bridge

if __name__ == "__main__":
    exec_bridge(sys.argv[1:])
