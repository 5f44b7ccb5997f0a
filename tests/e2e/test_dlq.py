"""Poison in the running product: set aside in every store, tried again, given up, and the books balance."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from schemas.topics import BUDGETS, REQUESTS
from streams.codec import Codec
from streams.kafka import KafkaPublisher
from streams.log import OutgoingRecord
from streams.registry import RegistrySchemas
from tests.e2e.product import Product
from tests.support.stories import outgoing, request_story

DEADLINE_SECONDS = 60
TENANT = ("--tenant", "tenant_poison")
#: What cannot be read in each store, and what waits behind it; Redis reads no requests.
EXPECTED = {
    ("postgres@v1", REQUESTS.name, "QUARANTINED"): 1,
    ("postgres@v1", REQUESTS.name, "PARKED"): 1,
    ("postgres@v1", BUDGETS.name, "QUARANTINED"): 1,
    ("clickhouse@v1", REQUESTS.name, "QUARANTINED"): 1,
    ("clickhouse@v1", REQUESTS.name, "PARKED"): 1,
    ("clickhouse@v1", BUDGETS.name, "QUARANTINED"): 1,
    ("redis@v1", BUDGETS.name, "QUARANTINED"): 1,
}


def until(condition: Callable[[], Any], shown: Callable[[], Any]) -> None:
    """Wait until the condition holds; fails with what is there instead."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, shown()
        time.sleep(0.2)


def spoiled(product: Product) -> list[OutgoingRecord]:
    """A record that nobody can read, a sound one of the same request, and a budget event that nobody can read."""
    codec = Codec(RegistrySchemas(product.setting("registry_url")))
    records = outgoing(codec, request_story(7, TENANT[1]))
    received = next(record for record in records if record.topic == REQUESTS.name)
    placed = next(record for record in records if record.topic == BUDGETS.name)
    return [received._replace(value=b"garbage"), received, placed._replace(value=b"garbage")]


def test_poison_is_set_aside_in_every_store_and_given_up(product: Product) -> None:
    """Each sink keeps what it cannot read and what waits behind it; given up, verify balances."""
    publisher = KafkaPublisher(product.setting("kafka_bootstrap"))
    publisher.publish(spoiled(product), lambda _: None)
    publisher.close()

    def listed() -> list[dict[str, Any]]:
        return list(product.json("dlq", "list", *TENANT)["records"])

    def kept() -> Counter[tuple[str, str, str]]:
        return Counter((each["sink"], each["topic"], each["state"]) for each in listed())

    until(lambda: kept() == EXPECTED, kept)
    product.run("dlq", "redrive", "--all", check=False)
    assert {(each["state"], each["attempts"]) for each in listed()} == {("QUARANTINED", 2), ("PARKED", 0)}

    assert product.json("dlq", "discard", *TENANT, "--reason", "made by a test")["discarded"] == sum(EXPECTED.values())

    assert listed() == []
    assert [] == [check for check in product.json("verify", "all", check=False)["checks"] if not check["ok"]]
