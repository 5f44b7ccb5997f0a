"""The bytes of entries: golden, canonical, chained; and which records are entered as what."""

from __future__ import annotations

from hashlib import sha256

import pytest

from processors.audit.entry import (
    CHAIN_START,
    KIND_UNDECODABLE,
    Entry,
    EntryError,
    Head,
    Source,
    chain_hash,
    commitment,
    decode_entry,
    encode_entry,
    seal,
)
from processors.audit.sources import source_of, undecodable

EVENT = "01890a5d-ac96-774b-bcce-b302099a8057"
VALUE = b"\0\0\0\0\7body"
SOURCE = Source(
    "acme", "quaestor.costs", "topic-uuid", 3, 41, 1_700_000_000_000_000, 7, commitment(VALUE),
    12_345, "USD", EVENT, EVENT, "CHARGE",
)  # fmt: skip
FIELDS = {
    "tenant_id": "acme", "event_id": EVENT, "request_id": EVENT, "occurred_at": 1_700_000_000_000_000,
    "amount_nano": 12_345, "currency": "USD", "kind": "CHARGE",
}  # fmt: skip


def test_the_bytes_of_an_entry_are_golden() -> None:
    """These bytes never change: every root ever signed rests on them."""
    expected = (
        b"audit/v1\n"
        + (5).to_bytes(8, "big")
        + (2).to_bytes(8, "big")
        + b"\x11" * 32
        + (3).to_bytes(4, "big")
        + (41).to_bytes(8, "big")
        + (1_700_000_000_000_000).to_bytes(8, "big", signed=True)
        + (7).to_bytes(4, "big")
        + sha256(b"quaestor/audit/value/v1\0" + VALUE).digest()
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
    for bad in (b"", data[:-1], data + b"\0", b"audit/v2\n" + data[9:], bytes(unpriced)):
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
    assert len({commitment(None), commitment(b""), commitment(b"x")}) == 3


def test_public_fields_of_a_decoded_record() -> None:
    """Tenant, ids, kind and amount stand in the entry; the schema id comes from the frame."""
    assert SOURCE == source_of(FIELDS, "quaestor.costs", "topic-uuid", 3, 41, 9, VALUE)


@pytest.mark.parametrize(
    "change",
    [
        {"tenant_id": "no such name"},
        {"tenant_id": None},
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
    source = source_of(FIELDS | change, "quaestor.costs", "topic-uuid", 3, 41, 9, VALUE)

    assert undecodable("quaestor.costs", "topic-uuid", 3, 41, 9, VALUE) == source


def test_an_undecodable_record_commits_to_its_bytes() -> None:
    """Its place, its bytes and its own time stamp, under _system."""
    source = undecodable("quaestor.costs", "topic-uuid", 3, 41, 9, b"junk")

    assert (source.tenant_id, source.kind, source.time_micros) == ("_system", KIND_UNDECODABLE, 9_000)
    assert (source.commitment, source.schema_id, source.event_id) == (commitment(b"junk"), 0, "")
