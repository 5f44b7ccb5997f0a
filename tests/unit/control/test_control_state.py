"""The fold of the control topic and its look-ups."""

from __future__ import annotations

import msgspec

from processors.control import ControlState, Erasure, Limit, Provider, VirtualKey, evolve, evolve_all
from processors.pricing import Price, Rates, make_book
from schemas.events import ControlAction, ControlEvent, EntityKind
from tests.budget_world import limit_on

KEY = VirtualKey(key_id="key_1", tenant_id="acme", team_id="search", project_id="web", key_hash="aa")
PROVIDER = Provider(provider_id="openai", base_url="https://api.openai.com/v1")


def event(kind: EntityKind, entity_id: str, after: object, tenant_id: str = "_system", number: int = 1) -> ControlEvent:
    """A control event that leaves `after` in force, or nothing."""
    return ControlEvent(
        event_id=f"00000000-0000-7000-8000-{number:012d}",
        occurred_at=number,
        tenant_id=tenant_id,
        actor="cli/0",
        entity_kind=kind,
        entity_id=entity_id,
        action=ControlAction.UPDATED if after else ControlAction.REMOVED,
        after=after if isinstance(after, str) or after is None else msgspec.json.encode(after).decode(),
    )


def limit(scope: str, scope_id: str, amount_nano: int = 5) -> Limit:
    """A limit of tenant acme."""
    return limit_on(scope, scope_id, amount_nano)


def price(model: str, rate: int = 1_000) -> Price:
    """A price of provider openai."""
    rates = Rates(input=rate, output=rate)
    return Price(price_id=f"openai/{model}", provider_id="openai", model=model, rates=rates)


def test_a_key_is_found_by_its_hash() -> None:
    """A created key is found by the hash of its text."""
    state = evolve(ControlState(), event(EntityKind.KEY, "key_1", KEY, "acme"))

    assert KEY == state.key_by_hash("aa")


def test_a_revoked_key_stays_known() -> None:
    """A revoked key is found, says that it is revoked, and so can be refused by name."""
    revoked = msgspec.structs.replace(KEY, revoked_at=7)
    state = evolve_all(
        ControlState(), [event(EntityKind.KEY, "key_1", KEY, "acme"), event(EntityKind.KEY, "key_1", revoked, "acme")]
    )

    assert (found := state.key_by_hash("aa")) is not None
    assert found.revoked


def test_a_key_with_a_new_hash_loses_the_old_one() -> None:
    """The index of hashes follows a change of the key."""
    other = msgspec.structs.replace(KEY, key_hash="bb")
    state = evolve_all(
        ControlState(), [event(EntityKind.KEY, "key_1", KEY, "acme"), event(EntityKind.KEY, "key_1", other, "acme")]
    )

    assert state.key_by_hash("aa") is None


def test_the_tenants_own_route_comes_first() -> None:
    """A tenant's alias hides everybody's of the same name."""
    everybody = {"alias": "fast", "tenant_id": "_system", "candidates": [["openai", "a"]]}
    own = {"alias": "fast", "tenant_id": "acme", "candidates": [["openai", "b"]]}
    state = evolve_all(
        ControlState(),
        [
            event(EntityKind.ROUTE, "fast", _route(everybody)),
            event(EntityKind.ROUTE, "fast", _route(own), "acme"),
        ],
    )

    assert ["b", "a"] == [
        found.candidates[0].model for tenant in ("acme", "other") if (found := state.route(tenant, "fast"))
    ]


def _route(fields: dict[str, object]) -> str:
    candidates = [{"provider_id": one[0], "model": one[1]} for one in fields["candidates"]]  # type: ignore[attr-defined]  # a list
    return msgspec.json.encode(fields | {"candidates": candidates}).decode()


def test_limits_are_found_by_what_they_stand_on() -> None:
    """Tenant and keys, each with its own."""
    limits = [limit("tenant", "acme"), limit("key", "key_1"), limit("key", "key_2")]
    state = evolve_all(ControlState(), [event(EntityKind.LIMIT, one.limit_id, one, "acme") for one in limits])

    assert {("acme", one.scope, one.scope_id): (one,) for one in limits} == state.limits_by_scope


def test_a_changed_limit_replaces_itself() -> None:
    """Setting a limit again leaves one limit, with the new amount."""
    changed = limit("tenant", "acme", amount_nano=9)
    state = evolve_all(
        ControlState(),
        [event(EntityKind.LIMIT, changed.limit_id, one, "acme") for one in (limit("tenant", "acme"), changed)],
    )

    assert (changed,) == state.limits_by_scope["acme", "tenant", "acme"]


def test_a_removed_limit_applies_no_more() -> None:
    """A removed limit leaves both tables."""
    one = limit("tenant", "acme")
    state = evolve_all(
        ControlState(),
        [event(EntityKind.LIMIT, one.limit_id, one, "acme"), event(EntityKind.LIMIT, one.limit_id, None, "acme")],
    )

    assert ({}, {}) == (state.limits_by_scope, state.limits)


def test_a_new_price_book_replaces_the_old_one() -> None:
    """A model that the new book leaves out has no price any more."""
    books = [make_book("openai", [price("a"), price("b")]), make_book("openai", [price("b", 2_000)])]
    state = evolve_all(ControlState(), [event(EntityKind.PRICE_BOOK, "openai", book) for book in books])

    assert (None, price("b", 2_000)) == (state.price("openai", "a"), state.price("openai", "b"))


def test_the_price_version_follows_the_book() -> None:
    """The version in force is the book's."""
    book = make_book("openai", [price("a")])
    state = evolve(ControlState(), event(EntityKind.PRICE_BOOK, "openai", book))

    assert book.version == state.price_version("openai")


def test_an_earlier_state_is_not_changed() -> None:
    """Folding on leaves the state that others hold as it was."""
    before = evolve(ControlState(), event(EntityKind.PROVIDER, "openai", PROVIDER))
    evolve(before, event(EntityKind.PROVIDER, "openai", None))

    assert PROVIDER == before.provider("openai")


def test_an_unreadable_event_is_counted_and_changes_nothing() -> None:
    """A newer writer's or a damaged entity stops no gateway."""
    state = evolve(ControlState(), event(EntityKind.PROVIDER, "openai", '{"provider_id": 7}'))

    assert (1, {}) == (state.unreadable, state.providers)


def test_an_unknown_kind_changes_nothing() -> None:
    """Kinds that a newer writer knows are passed over."""
    state = ControlState()

    assert state is evolve(state, event(EntityKind.UNKNOWN, "x", "{}"))


def test_folding_one_by_one_equals_folding_all() -> None:
    """evolve_all is evolve repeated."""
    events = [
        event(EntityKind.PROVIDER, "openai", PROVIDER, number=1),
        event(EntityKind.KEY, "key_1", KEY, "acme", number=2),
        event(EntityKind.LIMIT, limit("key", "key_1").limit_id, limit("key", "key_1"), "acme", number=3),
        event(EntityKind.PRICE_BOOK, "openai", make_book("openai", [price("a")]), number=4),
        event(EntityKind.PROVIDER, "openai", None, number=5),
    ]
    single = ControlState()
    for one in events:
        single = evolve(single, one)

    assert evolve_all(ControlState(), events) == single


def test_tenants_are_known_by_their_keys_and_limits() -> None:
    """A tenant exists once it has a key or a limit."""
    other = msgspec.structs.replace(KEY, key_id="key_2", tenant_id="globex", key_hash="bb")
    state = evolve_all(
        ControlState(),
        [
            event(EntityKind.KEY, "key_2", other, "globex"),
            event(EntityKind.LIMIT, limit("tenant", "acme").limit_id, limit("tenant", "acme"), "acme"),
        ],
    )

    assert frozenset({"acme", "globex"}) == state.tenants


def test_an_erasure_is_for_good() -> None:
    """Whatever is said of its handle later: the first one stands, and knows its event."""
    erasure = Erasure(handle="ab" * 16, tenant_id="acme", key_version="1", sealed_events=3, erased_at=5)
    later = msgspec.structs.replace(erasure, erased_at=9)
    told = [
        msgspec.structs.replace(event(EntityKind.SUBJECT, "ab" * 16, one, "acme", number), action=action)
        for number, (one, action) in enumerate(
            [
                (erasure, ControlAction.UPDATED),
                (erasure, ControlAction.ERASED),
                (later, ControlAction.ERASED),
                (None, ControlAction.REMOVED),
            ]
        )
    ]
    state = evolve_all(ControlState(), told)

    assert {"ab" * 16: msgspec.structs.replace(erasure, event_id=told[1].event_id)} == state.erasures
    assert {} == evolve(ControlState(), told[0]).erasures
