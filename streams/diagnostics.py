"""What a process of ours says of itself: a line of JSON on standard output, which whoever runs it keeps as its log."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any

import structlog

STANDARD_OUTPUT = 1


class Lines:
    """A logger whose line is lost when it can't be written: a disk that is full under the log ends no process.

    It writes past Python's buffer, which would keep a line that failed and fail again with it at the process's end.
    """

    def msg(self, message: str) -> None:
        """Write a line."""
        with contextlib.suppress(OSError):
            os.write(STANDARD_OUTPUT, message.encode(errors="backslashreplace") + b"\n")

    log = debug = info = warn = warning = error = critical = exception = fatal = failure = err = msg


def _lines(*_: Any) -> Lines:
    return Lines()


def configure_diagnostics(level: int = logging.INFO) -> None:
    """Have this process write its lines from this level on (as in `logging`)."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_lines,
    )
