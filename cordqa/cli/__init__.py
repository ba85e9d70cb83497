"""Command line: parses, calls, prints.

Nothing heavy is imported here; each command imports what it needs when it runs.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and leave with the documented exit status."""
    from cordqa.cli._run import run

    sys.exit(run())
