"""Monitor: what a process says about itself over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from streams.monitor import Monitor


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    """Listening on a free port."""
    made = Monitor("stream-test")
    made.start()
    yield made
    made.stop()


def get(monitor: Monitor, path: str) -> tuple[int, str]:
    """Status and body of one call."""
    connection = HTTPConnection("127.0.0.1", monitor.port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def test_status_begins_with_what_every_process_has(monitor: Monitor) -> None:
    """Name, state, lag and freshness; null where nothing is known."""
    status, body = get(monitor, "/status")

    assert status == 200
    assert json.loads(body) == {
        "name": "stream-test",
        "state": "starting",
        "lag_events": None,
        "freshness_seconds": None,
    }


def test_what_is_set_is_said(monitor: Monitor) -> None:
    """Fields left out stay, extra ones are added."""
    monitor.set(state="running", lag_events=3, generation="g")
    monitor.set(freshness_seconds=0.5)

    fields = json.loads(get(monitor, "/status")[1])

    assert (fields["state"], fields["lag_events"], fields["freshness_seconds"]) == ("running", 3, 0.5)
    assert fields["generation"] == "g"


def test_metrics_are_prometheus_text(monitor: Monitor) -> None:
    """Of this process alone."""
    monitor.metrics.counter("quaestor_requests_total").labels(operation="chat", status="200").inc(2)

    status, body = get(monitor, "/metrics")

    assert status == 200
    assert 'quaestor_requests_total{operation="chat",status="200"} 2.0' in body


def test_other_paths_are_not_found(monitor: Monitor) -> None:
    """Two paths are all."""
    assert get(monitor, "/")[0] == 404


def test_it_says_nothing_after_stop(monitor: Monitor) -> None:
    """The port is free again."""
    monitor.stop()

    with pytest.raises(OSError, match="refused"):
        get(monitor, "/status")
