"""What stands around the rows of Postgres' binary COPY format; sinks.postgres.copy tells of the rows."""

from __future__ import annotations

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
