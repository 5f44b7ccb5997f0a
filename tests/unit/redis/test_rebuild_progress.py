"""What a sink's process tells about partitions that are being rebuilt."""

from __future__ import annotations

from sinks.redis.keeping import tell_rebuilds
from sinks.redis.owned import Rebuild
from streams.monitor import Monitor


def rebuild(offset: int, barrier: int | None, first: int = 100) -> Rebuild:
    """Of partition 3."""
    return Rebuild(3, "log", "no gate", first, offset, barrier)


def test_the_share_counts_from_where_reading_began() -> None:
    """Half of the way from there to the barrier."""
    assert rebuild(150, 200).per_cent == 50


def test_the_share_is_whole_only_at_the_barrier() -> None:
    """It opens there, no event before."""
    assert (rebuild(9_999, 10_000, 0).per_cent, rebuild(10_000, 10_000, 0).per_cent) == (99, 100)


def test_nothing_to_read_is_all_of_it() -> None:
    """A barrier where reading begins."""
    assert rebuild(100, 100).per_cent == 100


def test_the_monitor_shows_what_is_closed() -> None:
    """From, at and barrier; and admission as a metric."""
    monitor = Monitor("sink-redis")
    tell_rebuilds(monitor)([rebuild(150, 200)], [4])

    (shown,) = monitor.status()["rebuilds"]
    assert (shown["from"], shown["at"], shown["barrier"], shown["per_cent"]) == (100, 150, 200, 50)
    assert admission(monitor) == {"3": 0.0, "4": 1.0}


def test_the_monitor_forgets_what_is_over() -> None:
    """Opened, or another process's now."""
    monitor = Monitor("sink-redis")
    tell = tell_rebuilds(monitor)
    tell([rebuild(150, 200)], [4])
    tell([], [3])

    assert monitor.status()["rebuilds"] == []
    assert admission(monitor) == {"3": 1.0}


def admission(monitor: Monitor) -> dict[str, float]:
    """The gauge by partition."""
    (metric,) = monitor.metrics.gauge("quaestor_admission_open").collect()
    return {sample.labels["partition"]: sample.value for sample in metric.samples}
