"""Redrives on the ClickHouse sink: the same suite, plans in memory and in Postgres."""

from __future__ import annotations

from tests.contract.test_clickhouse_sink_contract import harness, screened, way  # noqa: F401 - fixtures
from tests.contract.test_redrive_contract import (  # noqa: F401 - collected here under this module's harness
    test_a_redrive_cancelled_anywhere_is_completed_by_the_next,
    test_a_redrive_with_other_bytes_is_refused,
    test_a_redriven_record_is_there_once,
    test_a_successor_may_repeat_a_redrive,
    test_a_zombie_redrives_nothing,
    test_an_event_that_came_again_meanwhile_counts_once,
)
