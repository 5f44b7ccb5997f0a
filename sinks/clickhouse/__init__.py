"""ClickHouse: raw facts of the log, hourly rollups on them, and the questions analysts ask.

`sink.ClickHouseSink` writes (plan, insert, settle: `plans`), `reads.ClickHouseReads` reads, `migrations.migrate` makes
the tables.
"""

from __future__ import annotations
