"""Whom records of quaestor.control name to the Redis sink."""

from __future__ import annotations

from sinks.redis.run import tenants_of


def test_a_key_begins_with_its_tenant() -> None:
    """Whatever the entity is called; a record without a key names nobody."""
    assert tenants_of([b"acme/budget/1", b"acme/key", b"other/x", None]) == {"acme", "other"}


def test_a_key_that_is_none_of_ours_names_nobody() -> None:
    """Neither text that is no name nor bytes that are no text; the others of the batch are named."""
    assert tenants_of([b"\xff\xfe/x", b"no name/x", b"", b"/x", b"acme/x"]) == {"acme"}
