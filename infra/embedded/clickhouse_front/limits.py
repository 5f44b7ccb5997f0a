"""The limits of the front, unit last; the engine's own stand in cfg.xml and users.xml."""

from __future__ import annotations

#: A request body after decompression: rows and SQL travel in it.
BODY_BYTES_MAX = 256 * 1024 * 1024
#: SQL text, without the data of an INSERT.
SQL_BYTES_MAX = 1024 * 1024
#: Statements that run at once; more wait for a thread.
THREADS_MAX = 16
#: Requests under way or waiting; more are answered 503.
REQUESTS_MAX = 256
#: Bytes of a result gathered before the answer begins.
FIRST_BYTES = 1024 * 1024
#: A result that can't be streamed is refused above this.
MATERIALISED_BYTES_MAX = 512 * 1024 * 1024
SESSIONS_MAX = 100
SESSION_SECONDS_DEFAULT = 60
SESSION_SECONDS_MAX = 3600
#: How long a request waits for the one before it in its session.
SESSION_WAIT_SECONDS = 10
#: Time for running requests to end when the process is told to stop.
SHUTDOWN_SECONDS = 5

assert SQL_BYTES_MAX < BODY_BYTES_MAX
assert THREADS_MAX < REQUESTS_MAX
assert SESSION_SECONDS_DEFAULT <= SESSION_SECONDS_MAX
