"""One `quaestor` command, run by a process that was forked: `python -m tests.support.command OUTPUT ENVIRONMENT ...`.

OUTPUT is the file of its standard output, ENVIRONMENT all of its variables as JSON; what follows is the command line.
"""

from __future__ import annotations

import json
import os
import sys

from api.cli.main import main


def begin(output: str, environment: str, *arguments: str) -> None:
    """Make this process what the command by itself would be."""
    os.environ.clear()
    os.environ.update(json.loads(environment))
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(descriptor, sys.stdout.fileno())
    os.close(descriptor)
    sys.argv = ["quaestor", *arguments]
    # By which a command line that is wrong would be told how to start this module.
    sys.modules["__main__"].__package__ = None


if __name__ == "__main__":
    begin(*sys.argv[1:])
    main()
