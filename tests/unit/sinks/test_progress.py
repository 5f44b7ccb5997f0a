"""What a sink tells about itself, as Prometheus reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from sinks.runner.progress import MonitorProgress
from streams.log import Partition
from streams.monitor import Monitor

DOCUMENTED = (Path(__file__).parents[3] / "docs" / "reference" / "metrics.md").read_text()
OF_SINK = {"projection": "memory@v1"}
FIRST, SECOND = Partition("quaestor.costs", 0), Partition("quaestor.costs", 3)


class Told:
    """A sink's progress, and the text of /metrics."""

    def __init__(self) -> None:
        """Nothing was told."""
        self.monitor = Monitor("sink-memory")
        self.progress = MonitorProgress(self.monitor, OF_SINK["projection"])

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        """The values of this name by their labels, in the order of the labels' names."""
        text = generate_latest(self.monitor.metrics.registry).decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {tuple(of for _, of in sorted(each.labels.items())): each.value for each in samples if each.name == name}

    def of_sink(self, name: str) -> float:
        """The value of this name that has the projection for its only label."""
        return self.values(name)[OF_SINK["projection"],]


@pytest.fixture
def told() -> Told:
    """A sink that has just begun."""
    return Told()


def row_of(name: str) -> list[str]:
    """The documented labels of a metric."""
    (row,) = [line for line in DOCUMENTED.splitlines() if line.startswith(f"| `{name}` |")]
    return row.split("|")[2].strip().split(", ")


def test_the_lag_of_each_partition_is_told(told: Told) -> None:
    """Under its topic and number."""
    told.progress.lag({FIRST: 7, SECOND: 0}, 1.5)

    assert ["topic", "partition"] == row_of("quaestor_lag_events")
    assert {("0", FIRST.topic): 7.0, ("3", SECOND.topic): 0.0} == told.values("quaestor_lag_events")
    assert {(): 2.0} == told.values("quaestor_partitions_owned")


def test_the_lag_of_a_partition_that_others_own_is_told_no_longer(told: Told) -> None:
    """Its new owner tells it; two numbers would be added up."""
    told.progress.lag({FIRST: 7, SECOND: 5}, 1.5)
    told.progress.lag({SECOND: 4}, 1.0)

    assert {("3", SECOND.topic): 4.0} == told.values("quaestor_lag_events")


def test_the_age_of_the_oldest_unapplied_event_is_told(told: Told) -> None:
    """In seconds, as it was told last, also that none waits."""
    assert ["projection"] == row_of("quaestor_oldest_unapplied_seconds")
    for seconds in (12.25, 0.0):
        told.progress.lag({FIRST: 7}, seconds)

        assert seconds == told.of_sink("quaestor_oldest_unapplied_seconds")


def test_the_records_and_the_seconds_of_batches_are_told(told: Told) -> None:
    """Each batch counts once, in the bucket of its size and in that of its time."""
    told.progress.batch(400, 0.2, {})
    told.progress.batch(90, 0.05, {})

    assert ["projection"] == row_of("quaestor_batch_records") == row_of("quaestor_batch_seconds")
    assert ["projection"] == row_of("quaestor_batches_written_total")
    assert 2 == told.of_sink("quaestor_batches_written_total")
    assert (2, 490) == (told.of_sink("quaestor_batch_records_count"), told.of_sink("quaestor_batch_records_sum"))
    assert 2 == told.of_sink("quaestor_batch_seconds_count")
    assert pytest.approx(0.25) == told.of_sink("quaestor_batch_seconds_sum")
    buckets = told.values("quaestor_batch_records_bucket")
    assert [0, 1, 2] == [buckets[edge, OF_SINK["projection"]] for edge in ("50.0", "100.0", "500.0")]


def test_the_steps_of_a_batch_are_told(told: Told) -> None:
    """Each under its own name."""
    told.progress.batch(400, 0.2, {"wait": 0.5, "copy": 0.125})

    assert ["projection", "step"] == row_of("quaestor_batch_step_seconds")
    sums = {("memory@v1", "wait"): 0.5, ("memory@v1", "copy"): 0.125}
    assert sums == told.values("quaestor_batch_step_seconds_sum")


def test_retries_are_counted(told: Told) -> None:
    """Every one."""
    for _ in range(3):
        told.progress.retry()

    assert ["projection"] == row_of("quaestor_store_retries_total")
    assert 3 == told.of_sink("quaestor_store_retries_total")
