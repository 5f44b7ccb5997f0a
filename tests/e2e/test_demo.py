"""`quaestor demo` as a newcomer runs it: on a product of its own, from an empty log to a story that is verified."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.cli.demo import TEAMS
from api.verify.run import SCOPES
from infra.embedded.daemon import is_running
from infra.embedded.ports import is_free
from tests.e2e.product import Product

REQUESTS = 50
#: What it shows, in this order.
TITLES = (
    "Load",
    "Cost by team and model",
    "Trial balance",
    "Verification",
    "Request ",
    "Where to look next",
)
#: Of a request, as its story has them.
STEPS = ("RECEIVED", "DECISION", "PLACED", "ATTEMPT", "CHARGE", "COMMITTED", "COMPLETED")


@dataclass(frozen=True)
class Told:
    """What a product of its own said, from its first minute to its last."""

    data: Path
    #: What `verify` says of each scope before anything was sent.
    of_nothing: dict[str, str]
    demo: subprocess.CompletedProcess[str]
    #: Where it listened.
    ports: list[int]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Up, judged while its log is empty, then the demo, which stops it."""
    product = Product(tmp_path_factory.mktemp("demo") / "data")
    try:
        product.up()
        of_nothing = {scope: product.run("verify", scope, stderr=True) for scope in SCOPES}
        ports = [row["port"] for row in product.json("endpoints")["endpoints"]]
        demo = product.done("demo", "--requests", str(REQUESTS), "--exit")
        yield Told(product.data, of_nothing, demo, ports)
    finally:
        product.close()


def test_the_demo_tells_its_story(told: Told) -> None:
    """Its parts by their titles, every check that agrees, and one request step by step; then it ends with 0."""
    shown = told.demo.stdout

    assert 0 == told.demo.returncode, f"{shown}\n{told.demo.stderr}"
    places = [shown.find(f"\n{title}") for title in TITLES]
    assert (True, sorted(places)) == (min(places) > 0, places), shown
    costs = shown[places[1] : places[2]].splitlines()
    paid = {team: [line for line in costs if team in line and re.search(r"0\.0*[1-9]", line)] for team, _ in TEAMS}
    assert [] == [team for team, lines in paid.items() if not lines], shown
    assert "checks, nothing differs" in told.demo.stderr
    story = shown[places[4] :]
    assert [] == [step for step in STEPS if step not in story]
    assert "every step is verified" in told.demo.stderr


def test_the_demo_says_where_to_look_when_it_has_stopped(told: Told) -> None:
    """It begins with what starts it again, and does not say how to stop it."""
    after = told.demo.stdout.rpartition("Where to look next")[2]

    assert (True, False) == ("quaestor up" in after, "quaestor down" in after)
    assert 0 < after.find("quaestor up") < after.find("quaestor status")


def test_the_demo_leaves_nothing_running(told: Told) -> None:
    """No supervisor, and every port is free again."""
    assert not is_running(told.data)
    assert (True, []) == (len(told.ports) > 0, [port for port in told.ports if not is_free(port)])


def test_parity_of_a_new_product_says_that_it_compared_nothing(told: Told) -> None:
    """As budgets and ledger do; the audit log has the entities that `up` made."""
    says = {scope: "the log is empty" in said for scope, said in told.of_nothing.items()}

    assert {"parity": True, "budgets": True, "ledger": True, "audit": False} == says
