"""Which limits a call stands under, and what its hold takes from each."""

from __future__ import annotations

import pytest

from processors.budgets import HoldSize, Legs, Payer, Target, counted_nano, legs_for, standings
from processors.budgets.tree import UNLIMITED_NANO
from processors.control import ControlState, ExchangeRate, Increase, Limit, evolve_all
from schemas.errors import ConfigurationError
from schemas.limits import LEGS_MAX
from schemas.money import NANO_PER_UNIT
from tests.budget_world import NOW_MICROS
from tests.budget_world import limit_on as limit
from tests.support.control import limit_event

PAYER = Payer(
    tenant_id="acme",
    team_id="search",
    project_id="web",
    key_id="key_1",
    run_id="run-7",
    user="0123456789abcdef0123456789abcdef",
    tags={"env": "prod", "stage": "b"},
)
TARGET = Target("openai", "gpt-4o-2026", "fast")
SIZE = HoldSize(amount_nano=1_000, currency="USD", tokens=70)
RATE = ExchangeRate(base="USD", quote="EUR", rate_nano=920_000_001, dated="2026-11-20", source="test", rate_id="rate-1")
RATES = {("USD", "EUR"): RATE}
DAY_MICROS = 86_400_000_000


def known(*limits: Limit) -> ControlState:
    """Control that has these limits, by the events that set them."""
    return evolve_all(ControlState(), [limit_event(one, number) for number, one in enumerate(limits)])


def scopes_of(*limits: Limit, payer: Payer = PAYER, now: int = NOW_MICROS) -> list[tuple[str, str]]:
    """Scope and what it stands on of the limits that apply."""
    found = standings(known(*limits), payer, TARGET, now)
    return [(one.limit.scope, one.limit.scope_id) for one in found]


def test_a_call_stands_under_the_whole_tree_and_what_lies_across_the_narrowest_first() -> None:
    """One limit of every scope, and none that belongs to others."""
    mine = [
        ("tenant", "acme"),
        ("team", "search"),
        ("project", "web"),
        ("provider", "openai"),
        ("model", "gpt-4o-2026"),
        ("tag", "env=prod"),
        ("user", PAYER.user or ""),
        ("key", "key_1"),
        ("run", "run-7"),
    ]
    others = [("team", "ads"), ("tag", "env=test"), ("provider", "azure"), ("model", "gpt-4"), ("run", "run-8")]
    found = scopes_of(*(limit(*place) for place in [*mine, *others]))
    assert found == [*reversed(mine[5:]), mine[4], mine[3], mine[2], mine[1], mine[0]]


def test_a_limit_on_a_model_counts_calls_by_its_alias_too() -> None:
    """People limit what they ask for, and what it costs money at."""
    assert scopes_of(limit("model", "fast")) == [("model", "fast")]


def test_nothing_applies_to_a_payer_without_the_thing() -> None:
    """No run, no user, no tag: their limits count nothing."""
    limits = [limit("run", "*"), limit("user", "*"), limit("tag", "env=*")]
    assert scopes_of(*limits, payer=Payer("acme", "search", "web", "key_1")) == []


def test_each_one_of_a_kind_has_counters_of_its_own() -> None:
    """A limit on every run gives two runs two names, the same run one."""
    state = known(limit("run", "*"))
    names = {
        run: standings(state, PAYER._replace(run_id=run), TARGET, NOW_MICROS)[0].limit_id for run in ("run-7", "run-8")
    }
    again = standings(state, PAYER, TARGET, NOW_MICROS)[0].limit_id
    assert (names["run-7"] == again, names["run-8"] == again) == (True, False)


def test_each_value_of_a_tag_has_counters_of_its_own() -> None:
    """`env=*` leaves other tags alone."""
    assert scopes_of(limit("tag", "env=*"), limit("tag", "team=*")) == [("tag", "env=*")]


@pytest.mark.parametrize(
    ("fields", "applies"),
    [
        ({"valid_from": NOW_MICROS}, True),
        ({"valid_from": NOW_MICROS + 1}, False),
        ({"valid_until": NOW_MICROS}, False),
        ({"valid_until": NOW_MICROS + 1}, True),
    ],
)
def test_a_limit_counts_while_it_is_in_force(fields: dict[str, int], applies: bool) -> None:
    """From its beginning, up to but without its end."""
    assert bool(scopes_of(limit("tenant", "acme", **fields))) is applies


def legs(*limits: Limit, size: HoldSize = SIZE, now: int = NOW_MICROS) -> Legs:
    """The legs of a hold under these limits."""
    return legs_for(standings(known(*limits), PAYER, TARGET, now), PAYER, TARGET, size, now, RATES)


@pytest.mark.parametrize(
    ("currency", "held"),
    [("USD", 1_000), ("EUR", 921), ("TOK", 70), ("REQ", 1)],
)
def test_a_leg_holds_what_its_limit_counts(currency: str, held: int) -> None:
    """Money in its own currency, never less than the hold is worth; tokens; one request."""
    found = legs(limit("tenant", "acme", currency=currency))
    assert [(leg.amount_nano, leg.held_nano, leg.currency) for leg in found.legs] == [(held, held, currency)]


def test_the_exchange_rate_used_is_pinned() -> None:
    """By its id on the hold, by its value on the leg."""
    found = legs(limit("tenant", "acme", currency="EUR"))
    assert (found.exchange_rate_id, found.legs[0].exchange_rate_nano) == ("rate-1", 920_000_001)


def test_no_rate_is_named_where_none_is_used() -> None:
    """Dollars under a limit in dollars."""
    found = legs(limit("tenant", "acme"))
    assert (found.exchange_rate_id, found.legs[0].exchange_rate_nano) == (None, None)


def test_a_limit_without_an_exchange_rate_is_refused() -> None:
    """Never passed over: it would guard nothing."""
    found = standings(known(limit("tenant", "acme", currency="EUR")), PAYER, TARGET, NOW_MICROS)
    with pytest.raises(ConfigurationError, match="counts EUR and there is no exchange rate from USD"):
        legs_for(found, PAYER, TARGET, SIZE, NOW_MICROS, {})


def test_more_limits_than_a_hold_may_have_are_refused() -> None:
    """Never some of them."""
    state = known(*(limit("tenant", "acme", name=f"n{number}") for number in range(16)))
    found = standings(state, PAYER, TARGET, NOW_MICROS) * 3
    with pytest.raises(ConfigurationError, match=f"48 limits, {LEGS_MAX} are allowed"):
        legs_for(found, PAYER, TARGET, SIZE, NOW_MICROS, RATES)


def test_an_increase_counts_while_it_lasts() -> None:
    """Added to the amount from its beginning to its end."""
    more = Increase(amount_nano=50, valid_from=NOW_MICROS, valid_until=NOW_MICROS + DAY_MICROS, approval_code="A-1")
    one = limit("tenant", "acme", increases=(more,))
    allowed = [legs(one, now=NOW_MICROS + later).allowed_nano for later in (-1, 0, DAY_MICROS - 1, DAY_MICROS)]
    assert allowed == [(100,), (150,), (150,), (100,)]


def test_a_soft_limit_refuses_nothing() -> None:
    """It allows what no counter can reach; tests/contract/test_hold_store.py asks the live store."""
    assert legs(limit("tenant", "acme", hard=False)).allowed_nano == (UNLIMITED_NANO,)
    assert UNLIMITED_NANO > 1_000_000_000 * NANO_PER_UNIT


@pytest.mark.parametrize(("currency", "charged"), [("USD", 500), ("EUR", 460), ("TOK", 33), ("REQ", 1)])
def test_a_leg_is_charged_what_its_limit_counts(currency: str, charged: int) -> None:
    """At the rate that placement pinned, rounded half to even once."""
    (leg,) = legs(limit("tenant", "acme", currency=currency)).legs
    assert counted_nano(leg, HoldSize(500, "USD", 33)) == charged
