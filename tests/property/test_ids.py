"""Ids: uuid7 keeps its time and order, derived ids are functions of their parts."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import NAMESPACE, derived_id, is_name, is_uuid, uuid7, uuid7_millis

MICROS = st.integers(0, (1 << 48) * 1_000 - 1)
RANDOM = st.binary(min_size=10, max_size=10)
PART = st.text(st.characters(exclude_characters="/", exclude_categories=("Cs",)), max_size=30)


@given(MICROS, RANDOM)
def test_a_uuid7_is_one(now_micros: int, random: bytes) -> None:
    """Version 7, RFC variant, canonical text, and its time inside."""
    made = uuid7(now_micros, random)

    assert str(uuid.UUID(made)) == made
    assert uuid.UUID(made).version == 7
    assert uuid.UUID(made).variant == uuid.RFC_4122
    assert uuid7_millis(made) == now_micros // 1_000


@given(MICROS, RANDOM, MICROS, RANDOM)
def test_uuid7s_sort_by_time(first: int, random: bytes, second: int, other: bytes) -> None:
    """A later millisecond is a greater id."""
    if first // 1_000 < second // 1_000:
        assert uuid7(first, random) < uuid7(second, other)


@given(MICROS, RANDOM, RANDOM)
def test_uuid7s_of_one_time_differ_by_their_random_bits(now_micros: int, random: bytes, other: bytes) -> None:
    """74 of the 80 bits count."""
    bits = int.from_bytes(random, "big") ^ int.from_bytes(other, "big")
    counted = (1 << 80) - (1 << 68) | (1 << 62) - 1

    assert (uuid7(now_micros, random) == uuid7(now_micros, other)) == (bits & counted == 0)


@given(PART, PART, PART, PART)
def test_a_derived_id_is_a_function_of_its_parts(processor: str, source: str, kind: str, leg: str) -> None:
    """The same parts give the same id, a uuid5 in canonical text."""
    made = derived_id(processor, source, kind, leg)

    assert made == derived_id(processor, source, kind, leg)
    assert made == str(uuid.uuid5(NAMESPACE, f"{processor}/{source}/{kind}/{leg}"))
    assert is_uuid(made)
    assert uuid.UUID(made).version == 5


@given(st.tuples(PART, PART, PART, PART), st.tuples(PART, PART, PART, PART))
def test_other_parts_are_another_id(first: tuple[str, str, str, str], second: tuple[str, str, str, str]) -> None:
    """No two sources share one, as long as no part but the last holds a slash."""
    assert (first == second) == (derived_id(*first) == derived_id(*second))


def test_derived_ids_never_change() -> None:
    """These are on logs that exist: a change here would post everything twice."""
    assert derived_id("ledger", "018bcfe5-6800-7000-8000-000000000001", "PENDING", "limit|USD|0|0") == (
        "82ad26c1-4407-57ab-888d-b0b0ce86f608"
    )


@pytest.mark.parametrize(
    "text", ["", "x", "018bcfe5-6800-4000-8000-000000000001", "018BCFE5-6800-7000-8000-000000000001"]
)
def test_what_is_no_uuid7_has_no_time(text: str) -> None:
    """Another version, upper case, anything."""
    with pytest.raises(ValueError, match="uuid7"):
        uuid7_millis(text)


@pytest.mark.parametrize(
    ("name", "good"), [("acme", True), ("a.b:c-d_e", True), ("", False), ("-a", False), ("a/b", False)]
)
def test_names(name: str, good: bool) -> None:
    """What may stand in a key and in an account's name."""
    assert good is is_name(name)


def test_a_name_has_at_most_128_characters() -> None:
    """One more is refused."""
    assert is_name("a" * 128)
    assert not is_name("a" * 129)
