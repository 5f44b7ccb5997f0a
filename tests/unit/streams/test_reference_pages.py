"""The reference pages say what the code says."""

from __future__ import annotations

from typing import get_args

import pytest

from streams import document
from streams.metrics import COUNTERS, GAUGES, HISTOGRAMS, CounterName, GaugeName, HistogramName, Metrics


def test_pages_are_current() -> None:
    """What `python -m streams.document --check` says."""
    assert document.main(["--check"]) == 0


@pytest.mark.parametrize(
    ("names", "table"), [(CounterName, COUNTERS), (GaugeName, GAUGES), (HistogramName, HISTOGRAMS)]
)
def test_every_name_that_type_checks_is_in_the_table(names: object, table: dict[str, object]) -> None:
    """The literals and the tables agree."""
    assert set(get_args(names)) == set(table)


def test_metrics_are_made_once_in_their_own_registry() -> None:
    """Asking again gives the same one; two processes' metrics do not meet."""
    first, second = Metrics(), Metrics()
    counter = first.counter("quaestor_publish_failures_total")
    counter.inc()

    assert first.counter("quaestor_publish_failures_total") is counter
    assert second.registry.get_sample_value("quaestor_publish_failures_total") is None
    assert first.registry.get_sample_value("quaestor_publish_failures_total") == 1


def test_a_name_that_is_not_in_the_table_is_refused() -> None:
    """Also where the type checker does not look."""
    with pytest.raises(KeyError):
        Metrics().gauge("quaestor_unheard_of")  # type: ignore[arg-type] # what the test is about
