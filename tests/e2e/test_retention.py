"""Retention and legal holds of the whole product, through its command line."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

from schemas import events
from schemas.ids import derived_id
from streams.codec import Codec
from streams.kafka import KafkaPublisher
from streams.records import outgoing
from streams.registry import RegistrySchemas
from tests.e2e.product import Product
from tests.support.gateway_stack import wait_for

SECONDS_MAX = 60.0
OLD_MICROS = int(datetime(2025, 5, 10, tzinfo=UTC).timestamp()) * 1_000_000


def old_events() -> list[events.Event]:
    """A decision and a health window of long ago."""
    common: dict[str, Any] = {"occurred_at": OLD_MICROS, "actor": "gateway/old"}
    return [
        events.RoutingDecision(
            event_id=derived_id("e2e", "retention", "decision", ""), tenant_id="retained", request_id="long-ago",
            model_requested="m", policy="ordered", policy_version="1", candidates=(), **common,
        ),
        events.ProviderHealth(
            event_id=derived_id("e2e", "retention", "health", ""), tenant_id="_system", provider_id="p", model="m",
            region="-", window_start=OLD_MICROS, window_end=OLD_MICROS + 1, attempts=1, errors=0, timeouts=0,
            latency_p50_micros=1, latency_p95_micros=2, state=events.HealthState.HEALTHY, **common,
        ),
    ]  # fmt: skip


def produce(product: Product, produced: list[events.Event]) -> None:
    """Write events as an application would."""
    publisher, done = KafkaPublisher(product.setting("kafka_bootstrap"), linger_milliseconds=0), threading.Event()
    codec = Codec(RegistrySchemas(product.setting("registry_url")))
    publisher.publish([outgoing(codec, event) for event in produced], lambda _fault: done.set())
    assert done.wait(SECONDS_MAX)
    publisher.close()


def plan_of(product: Product, name: str) -> dict[str, Any]:
    """What would go of a class."""
    (plan,) = product.json("audit", "retention", "plan", name)["plans"]
    return dict(plan)


def test_old_months_go_unless_they_are_held(product: Product) -> None:
    """Held, they stay and the plan names the hold; released, they go from both stores, and everything still agrees."""
    produce(product, old_events())
    product.run("audit", "retention", "set", "events", "--keep-days", "400", "--reason", "policy 3")
    old = {("postgres", "decision 2025-05"), ("postgres", "health 2025-05"), ("clickhouse", "decisions 2025-05")}
    old |= {("clickhouse", "health 2025-05")}
    wait_for(
        lambda: old <= {(each["store"], each["what"]) for each in plan_of(product, "events")["drops"]}, SECONDS_MAX
    )
    hold = ("audit", "hold", "add", "--tenant", "retained", "--reason", "case 7", "--from", "2025-05-01")
    held = product.json(*hold)["hold"]["id"]

    kept = plan_of(product, "events")
    assert (held, [], 0) == (kept["hold"], kept["drops"], kept["rows"])
    product.run("audit", "hold", "release", held)
    since = plan_of(product, "events")["kept_from"]
    (done,) = product.json("audit", "retention", "apply", "events", "--yes")["applied"]
    assert [f"4 months of tables before {since}"] == done["gone"]
    assert [] == plan_of(product, "events")["drops"]
    found = product.json("verify", "all")
    assert found["ok"], [each for each in found["checks"] if not each["ok"]]
    assert 8 == sum(each["name"].endswith(f" from {since} on") for each in found["checks"])


def test_a_young_log_is_not_cut(product: Product) -> None:
    """The newest block stays, whatever the policy; nothing is recorded."""
    product.run("audit", "retention", "set", "audit", "--keep-days", "30")
    (done,) = product.json("audit", "retention", "apply", "audit", "--yes")["applied"]

    assert ([], False, "the newest block stays") == (
        done["gone"],
        done["plan"]["unfinished"],
        done["plan"]["why_no_more"],
    )
    assert 0 == product.json("audit", "info")["minimum_index"]
