"""ClickHouse for one machine: chDB (ClickHouse as a library) behind the HTTP interface of a ClickHouse server.

One process owns the data directory; clients use the ordinary ClickHouse HTTP protocol. Loopback only. What it can't do
(users from SQL, row policies, replication, clusters, the native TCP protocol) is listed in
docs/decisions/0020-clickhouse-front.md.
"""

from __future__ import annotations
