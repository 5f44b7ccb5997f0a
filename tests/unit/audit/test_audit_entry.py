"""The bytes of entries: golden, canonical, chained; and which records are entered as what."""

from __future__ import annotations

from hashlib import blake2b, sha256

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from processors.audit.commitment import Salts, commitment
from processors.audit.entry import (
    CHAIN_START,
    KIND_UNDECODABLE,
    LOG_TENANT,
    MAGIC_UNSALTED,
    Entry,
    EntryError,
    Head,
    Source,
    chain_hash,
    decode_entry,
    encode_entry,
    heads_source,
    is_own,
    seal,
)
from processors.audit.sources import Place, source_of, undecodable
from tests.support.audit import SALTS

EVENT = "01890a5d-ac96-774b-bcce-b302099a8057"
VALUE = b"\0\0\0\0\7body"
PLACE = Place("quaestor.costs", "topic-uuid", 3, 41, 9, VALUE)
SOURCE = Source(
    "acme", "quaestor.costs", "topic-uuid", 3, 41, 1_700_000_000_000_000, 7,
    SALTS.commitment(VALUE, "acme", "topic-uuid", 3, 41),
    12_345, "USD", EVENT, EVENT, "CHARGE",
)  # fmt: skip
FIELDS = {
    "tenant_id": "acme", "event_id": EVENT, "request_id": EVENT, "occurred_at": 1_700_000_000_000_000,
    "amount_nano": 12_345, "currency": "USD", "kind": "CHARGE",
}  # fmt: skip


def test_the_bytes_of_an_entry_are_golden() -> None:
    """These bytes never change: every root ever signed rests on them."""
    key = HKDF(SHA256(), 32, None, b"quaestor/audit/salt/v1\0acme").derive(bytes(range(32)))
    salt = blake2b(b"topic-uuid" + (3).to_bytes(4, "big") + (41).to_bytes(8, "big"), key=key, digest_size=32).digest()
    expected = (
        b"audit/v2\n"
        + (5).to_bytes(8, "big")
        + (2).to_bytes(8, "big")
        + b"\x11" * 32
        + (3).to_bytes(4, "big")
        + (41).to_bytes(8, "big")
        + (1_700_000_000_000_000).to_bytes(8, "big", signed=True)
        + (7).to_bytes(4, "big")
        + sha256(b"quaestor/audit/value/v2\0" + salt + VALUE).digest()
        + b"\1"
        + (12_345).to_bytes(8, "big", signed=True)
        + b"\0\4acme\0\x0equaestor.costs\0\x0atopic-uuid\0\3USD\0\6CHARGE"
        + b"\0\x24" + EVENT.encode() + b"\0\x24" + EVENT.encode()
    )  # fmt: skip

    assert expected == encode_entry(Entry(5, 2, b"\x11" * 32, SOURCE))


def test_an_entry_reads_back() -> None:
    """Decoding gives what was encoded, without an amount too."""
    for source in (SOURCE, SOURCE._replace(amount_nano=None), SOURCE._replace(amount_nano=-5, tenant_id="ä")):
        entry = Entry(0, 1, CHAIN_START, source)
        assert entry == decode_entry(encode_entry(entry))


@pytest.mark.parametrize("position", range(0, 235, 7))
def test_no_other_bytes_read_as_the_same_entry(position: int) -> None:
    """A flipped bit anywhere is another entry or none."""
    data = encode_entry(Entry(5, 2, b"\x11" * 32, SOURCE))
    flipped = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
    try:
        found = decode_entry(flipped)
    except EntryError:
        return
    assert encode_entry(found) == flipped
    assert found != decode_entry(data)


def test_cut_long_and_unmarked_entries_are_refused() -> None:
    """Exactly the bytes that encoding gives."""
    data = encode_entry(Entry(5, 2, b"\x11" * 32, SOURCE))
    unpriced = bytearray(encode_entry(Entry(5, 2, b"\x11" * 32, SOURCE._replace(amount_nano=None))))
    unpriced[121] = 1
    for bad in (b"", data[:-1], data + b"\0", b"audit/v3\n" + data[9:], bytes(unpriced)):
        with pytest.raises(EntryError):
            decode_entry(bad)


def test_a_number_out_of_range_is_refused() -> None:
    """Nothing is cut to fit."""
    with pytest.raises(ValueError, match=r"quaestor\.costs/3@41"):
        encode_entry(Entry(0, 1, CHAIN_START, SOURCE._replace(amount_nano=1 << 63)))


def test_chains_run_through_each_tenant() -> None:
    """Sealing numbers the log and each tenant apart, and hashes each chain on."""
    heads = {"acme": Head(4, b"\x22" * 32)}
    sealed = seal([SOURCE, SOURCE._replace(tenant_id="other"), SOURCE], 10, heads)

    assert [(10, 5), (11, 1), (12, 6)] == [(each.seq, each.tseq) for each in sealed]
    assert sealed[0].chain == chain_hash(b"\x22" * 32, sha256(b"\0" + sealed[0].entry).digest())
    assert decode_entry(sealed[2].entry).prev_chain == sealed[0].chain
    assert decode_entry(sealed[1].entry).prev_chain == CHAIN_START
    assert heads == {"acme": Head(6, sealed[2].chain), "other": Head(1, sealed[1].chain)}


def test_a_null_value_is_not_an_empty_one() -> None:
    """A tombstone has a commitment of its own."""
    salt = bytes(32)
    assert len({commitment(None, salt), commitment(b"", salt), commitment(b"x", salt)}) == 3


def test_the_same_bytes_elsewhere_have_another_commitment() -> None:
    """Tenant, topic, partition, offset and the log's secret each change the salt: nothing can be guessed across."""
    places = [("a", "t", 1, 1), ("b", "t", 1, 1), ("a", "u", 1, 1), ("a", "t", 2, 1), ("a", "t", 1, 2)]
    found = {salts.commitment(VALUE, *place) for place in places for salts in (SALTS, Salts(bytes(32)))}
    assert len(found) == 10


def test_entries_of_before_salts_read_back() -> None:
    """An entry of version 1 keeps its bytes, and so its hash."""
    entry = Entry(0, 1, CHAIN_START, SOURCE, MAGIC_UNSALTED)
    assert entry == decode_entry(encode_entry(entry))


def test_the_logs_own_entries_are_known_by_their_bytes() -> None:
    """Heads are, a tenant of a longer or shorter name is not."""
    own, other, longer = (
        encode_entry(Entry(0, 1, CHAIN_START, source))
        for source in (heads_source(bytes(32), 1), SOURCE, SOURCE._replace(tenant_id="_logs"))
    )
    assert [True, False, False] == [is_own(data) for data in (own, other, longer)]


def test_public_fields_of_a_decoded_record() -> None:
    """Tenant, ids, kind and amount stand in the entry; the schema id comes from the frame."""
    assert SOURCE == source_of(FIELDS, PLACE, SALTS)


@pytest.mark.parametrize(
    "change",
    [
        {"tenant_id": "no such name"},
        {"tenant_id": None},
        {"tenant_id": LOG_TENANT},
        {"event_id": "x"},
        {"event_id": EVENT.upper()},
        {"request_id": "\0"},
        {"amount_nano": 1 << 63},
        {"occurred_at": None},
        {"currency": "x" * 17},
        {"currency": "\u20ac"},
    ],
    ids=str,
)
def test_a_record_whose_fields_do_not_fit_is_entered_as_bytes(change: dict[str, object]) -> None:
    """Never skipped: what can't stand in an entry is committed to under the system tenant."""
    assert undecodable(PLACE, SALTS) == source_of(FIELDS | change, PLACE, SALTS)


def test_an_undecodable_record_commits_to_its_bytes() -> None:
    """Its place, its bytes and its own time stamp, under _system."""
    source = undecodable(PLACE._replace(value=b"junk"), SALTS)

    assert (source.tenant_id, source.kind, source.time_micros) == ("_system", KIND_UNDECODABLE, 9_000)
    assert (source.schema_id, source.event_id) == (0, "")
    assert source.commitment == SALTS.commitment(b"junk", "_system", "topic-uuid", 3, 41)
