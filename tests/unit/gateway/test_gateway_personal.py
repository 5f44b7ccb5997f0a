"""Personal data: handles, tags in the clear, what is sealed, and a vault that is away."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.gateway.subjects import KEPT_SECONDS, TENANT_ITSELF, Subjects
from processors.control import ControlState, Provider
from processors.subjects.sealing import Sealer
from schemas.events import RequestEvent, RequestKind, RoutingDecision, SubjectState
from sinks.postgres.key_encryption import WrappedKey
from sinks.postgres.vault_rows import MemoryRows
from tests.support.gateway_world import (
    KEY,
    OTHER_KEY,
    TENANT,
    AwayRows,
    World,
    chat,
    control_state,
    memory_vault,
    nobody,
)

CANARY = "bob@example.com"


async def received(world: World, body: dict[str, Any], **headers: str) -> RequestEvent:
    """The RECEIVED event of a call."""
    await world.call(body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})
    event = world.one(RequestEvent, kind=RequestKind.RECEIVED)
    assert isinstance(event, RequestEvent)
    return event


async def opened(world: World, event: RequestEvent, user: str) -> Any:
    """What an event seals, with the key of its subject."""
    subject = await world.vault.subject(TENANT, user)
    assert event.sealed is not None
    return json.loads(Sealer(subject.data_key).open(TENANT, event.event_id, event.sealed))


async def test_a_user_becomes_a_handle(tmp_path: Path) -> None:
    """The vault's, the same for the same user."""
    async with World(tmp_path) as world:
        event = await received(world, chat(user=CANARY))
        subject = await world.vault.subject(TENANT, CANARY)

    assert (subject.handle, SubjectState.LINKED) == (event.subject_handle, event.subject_state)


async def test_without_a_user_there_is_no_handle(tmp_path: Path) -> None:
    """An empty user is none."""
    async with World(tmp_path) as world:
        event = await received(world, chat(user=""))

    assert (None, SubjectState.NONE) == (event.subject_handle, event.subject_state)


async def test_allowed_tags_stand_in_the_clear(tmp_path: Path) -> None:
    """From the body's metadata and from the header; the header wins."""
    async with World(tmp_path) as world:
        body = chat(metadata={"feature": "search", "team": "red"})
        event = await received(world, body, x_quaestor_tags="team=blue, purpose=test")

    assert {"feature": "search", "team": "blue", "purpose": "test"} == event.tags


async def test_metadata_of_embeddings_is_treated_alike(tmp_path: Path) -> None:
    """In the clear by the list, sealed off it, and the header wins."""
    body = {
        "model": "default",
        "input": "x",
        "user": CANARY,
        "metadata": {"team": "red", "feature": "a", "who": CANARY},
    }
    async with World(tmp_path) as world:
        await world.call("/v1/embeddings", body, headers={"x-quaestor-tags": "team=blue"})
        event = world.one(RequestEvent, kind=RequestKind.RECEIVED)
        sealed = await opened(world, event, CANARY)

    assert ({"team": "blue", "feature": "a"}, {"who": CANARY}) == (event.tags, sealed["tags"])


async def test_other_tags_are_sealed_under_the_subjects_key(tmp_path: Path) -> None:
    """A key off the list, and a value on it that is no plain name."""
    async with World(tmp_path) as world:
        body = chat(user=CANARY, metadata={"email": CANARY, "feature": "a sentence about bob", "team": "red"})
        event = await received(world, body)
        sealed = await opened(world, event, CANARY)

    assert {"team": "red"} == event.tags
    assert {"email": CANARY, "feature": "a sentence about bob"} == sealed["tags"]


async def test_without_a_user_the_tenants_own_key_seals(tmp_path: Path) -> None:
    """So that erasing a tenant shreds it."""
    async with World(tmp_path) as world:
        event = await received(world, chat(metadata={"email": CANARY}))
        sealed = await opened(world, event, TENANT_ITSELF)

    assert {"email": CANARY} == sealed["tags"]


async def test_the_commitment_opens_with_the_sealed_salt(tmp_path: Path) -> None:
    """Whoever holds the body and the salt can show that this was the request."""
    raw = json.dumps(chat(user=CANARY)).encode()
    async with World(tmp_path) as world:
        await world.call(body=raw)
        event = world.one(RequestEvent, kind=RequestKind.RECEIVED)
        salt = bytes.fromhex((await opened(world, event, CANARY))["salt"])

    assert hashlib.sha256(b"commit/v1\0" + salt + raw).digest() == event.body_commitment


async def test_equal_bodies_have_different_commitments(tmp_path: Path) -> None:
    """The salt is random: equal prompts can't be told from the log."""
    async with World(tmp_path) as world:
        await world.call()
        await world.call()
        events = [event for event in world.events("requests") if isinstance(event, RequestEvent)]

    commitments = [event.body_commitment for event in events if event.kind is RequestKind.RECEIVED]
    assert 2 == len(set(commitments))


async def test_no_canary_reaches_the_log(tmp_path: Path) -> None:
    """Not the user, not the prompt, not a tag's value, not the answer."""
    async with World(tmp_path) as world:
        messages = [{"role": "user", "content": "prompt-canary"}]
        body = chat(user=CANARY, messages=messages, metadata={"who": "tag-canary"})
        await world.call(body=body, headers={"x-quaestor-tags": "more=header-canary"})
        everything = b"".join(
            (record.key or b"") + (record.value or b"") for records in world.log.records.values() for record in records
        )

    for canary in (CANARY.encode(), b"prompt-canary", b"tag-canary", b"header-canary", b"hi there"):
        assert canary not in everything


async def test_without_the_vault_requests_go_on(tmp_path: Path) -> None:
    """The event says so; what would have been sealed is left out."""
    async with World(tmp_path) as world:
        world.parts.subjects = Subjects(memory_vault(rows=AwayRows()), ("team",), nobody)
        event = await received(world, chat(user=CANARY, metadata={"team": "red", "email": CANARY}))

    assert (SubjectState.UNAVAILABLE, None, None, None) == (
        event.subject_state,
        event.subject_handle,
        event.sealed,
        event.body_commitment,
    )
    assert {"team": "red"} == event.tags


async def test_a_key_that_does_not_open_is_no_handle() -> None:
    """A row that was altered must not fail its person's requests; others are known as ever."""
    rows = MemoryRows()
    await memory_vault(rows=rows).subject(TENANT, "u")
    (place,) = rows.rows
    rows.rows[place] = replace(rows.rows[place], wrapped=WrappedKey("1", bytes(60)))
    subjects = Subjects(memory_vault(rows=rows), (), nobody)
    broken, sound = [await subjects.personal(TENANT, user, {}, b"", "id") for user in "uv"]

    assert (SubjectState.UNAVAILABLE, None, None) == (broken.subject_state, broken.subject_handle, broken.sealed)
    assert SubjectState.LINKED is sound.subject_state


async def test_a_vault_that_failed_is_left_alone_for_a_while() -> None:
    """Or every request would wait for it."""
    now = [0.0]
    rows = AwayRows()
    subjects = Subjects(memory_vault(rows=rows), (), nobody, lambda: now[0])
    for _ in range(5):
        await subjects.personal(TENANT, "u", {}, b"", "id")
    asked_while_resting = rows.asked
    now[0], rows.away = 1.5, False
    personal = await subjects.personal(TENANT, "u", {}, b"", "id")

    assert (1, SubjectState.LINKED) == (asked_while_resting, personal.subject_state)


async def test_a_handle_is_remembered_for_a_minute_at_most() -> None:
    """Then the vault is asked again, and a row that is gone is made anew with another handle."""
    now, rows = [0.0], MemoryRows()
    subjects = Subjects(memory_vault(rows=rows), (), nobody, lambda: now[0])
    before = await subjects.personal(TENANT, "u", {}, b"", "id")
    rows.rows.clear()
    kept = await subjects.personal(TENANT, "u", {}, b"", "id")
    now[0] = KEPT_SECONDS
    after = await subjects.personal(TENANT, "u", {}, b"", "id")

    assert before.subject_handle == kept.subject_handle != after.subject_handle


async def test_an_erased_key_is_not_used_once_the_control_topic_tells() -> None:
    """At the next call, whatever is kept: the row that is still there is deleted, another handle is made."""
    erased: set[str | None] = set()
    rows = MemoryRows()
    vault = memory_vault(erased.__contains__, rows)
    subjects = Subjects(vault, (), erased.__contains__)
    before = await subjects.personal(TENANT, "u", {}, b"", "id")
    erased.add(before.subject_handle)
    after = await subjects.personal(TENANT, "u", {}, b"", "id")

    assert before.subject_handle != after.subject_handle
    assert [after.subject_handle] == [row.handle for row in rows.rows.values()]


async def test_keys_leave_memory() -> None:
    """After their time without anybody calling, and at once where their subject was erased."""
    now, erased = [0.0], set[str | None]()
    subjects = Subjects(memory_vault(), (), erased.__contains__, lambda: now[0])
    first = await subjects.personal(TENANT, "first", {}, b"", "id")
    now[0] = 1.0
    await subjects.personal(TENANT, "second", {}, b"", "id")
    erased.add(first.subject_handle)
    subjects.forget_erased()
    after_erasure = list(subjects._seals)
    now[0] = KEPT_SECONDS + 1.0
    subjects.forget()

    assert ([(TENANT, "second")], []) == (after_erasure, list(subjects._seals))


async def test_a_key_that_was_asked_for_again_leaves_after_others() -> None:
    """It does not keep those in memory whose time is over."""
    now = [0.0]
    subjects = Subjects(memory_vault(), (), nobody, lambda: now[0])
    for at, user in ((0.0, "first"), (1.0, "second"), (KEPT_SECONDS, "first")):
        now[0] = at
        await subjects.personal(TENANT, user, {}, b"", "id")
    now[0] = KEPT_SECONDS + 1.0
    subjects.forget()

    assert [(TENANT, "first")] == list(subjects._seals)


def without_lists() -> ControlState:
    """Both providers take any name, as one that was added without models does."""
    names = ("one", "two")
    return control_state(providers={name: Provider(provider_id=name, base_url="http://a.test") for name in names})


@pytest.mark.parametrize(
    ("key", "code"), [(KEY, "model_without_price"), (OTHER_KEY, "model_not_allowed")], ids=["no price", "not allowed"]
)
async def test_a_model_that_nobody_set_is_told_and_not_kept(tmp_path: Path, key: str, code: str) -> None:
    """Any text may stand behind a provider's name: the answer repeats it, no event does."""
    async with World(tmp_path, state=without_lists()) as world:
        response = await world.call(body=chat(model=f"one/{CANARY}"), key=key)
        everything = b"".join(record.value or b"" for records in world.log.records.values() for record in records)

    assert (code, True) == (response.error["code"], CANARY in response.error["message"])
    assert (None, code) == ((refused := world.one(RequestEvent)).model_requested, refused.error_code)
    assert CANARY.encode() not in everything


@pytest.mark.parametrize("model", ["one/two-big", "one/one-big"], ids=["another's", "its own"])
async def test_a_model_that_somebody_set_is_kept(tmp_path: Path, model: str) -> None:
    """Whoever looks for the calls that found no price, or were not allowed, sees which model they named."""
    async with World(tmp_path, state=without_lists()) as world:
        await world.call(body=chat(model=model), key=OTHER_KEY)

    kept = [world.one(RequestEvent).model_requested, world.one(RoutingDecision).model_requested]
    assert [model, model] == kept
