"""What a pruned log still has: its minimum index, and where every chain and partition stood before the entry there.

Public as the file `minimum-index`, JSON (docs/reference/audit-format.md). Nobody signs it, and nobody needs to: the
entries that follow show it. A chain that goes on names its `tseq` and `prev_chain`, a partition that goes on its
offset, and the next heads entry commits to every chain, also to those that don't.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from processors.audit.entry import Head
from processors.audit.merkle import HASH_BYTES
from processors.audit.tiles import TILE_WIDTH
from schemas.errors import IntegrityError

FORMAT = "quaestor/audit/minimum-index/v1"
_TSEQ_END, _TENANT_BYTES_END = 1 << 64, 1 << 16
#: Topic, topic UUID, number.
PartitionKey = tuple[str, str, int]


class Kept(NamedTuple):
    """What there is from a position on."""

    #: Entries below it are gone; their hashes are not. A multiple of 65,536.
    minimum_index: int
    #: The policy, days: an entry stays for at least as long.
    keep_days: int
    #: Tenant to where its chain stood before the entry there, `_log` included.
    heads: dict[str, Head]
    #: Partition to the offset after its last entry before it.
    next_offsets: dict[PartitionKey, int]

    def gave_up(self, topic: str, partition: int, offset: int) -> bool:
        """Whether the record's entry was below the minimum index."""
        ends = (end for key, end in self.next_offsets.items() if (key[0], key[2]) == (topic, partition))
        return offset < max(ends, default=0)


#: Of a log that was never pruned.
EVERYTHING = Kept(0, 0, {}, {})


class _File(msgspec.Struct, frozen=True, kw_only=True):
    format: str
    minimum_index: int
    keep_days: int
    #: Tenant, tseq, chain as hex.
    chains: list[tuple[str, int, str]]
    #: Topic, topic UUID, number, next offset.
    partitions: list[tuple[str, str, int, int]]


def encode_kept(kept: Kept) -> bytes:
    """The file's bytes."""
    chains = [(tenant, head.tseq, head.chain.hex()) for tenant, head in sorted(kept.heads.items())]
    partitions = [(*key, offset) for key, offset in sorted(kept.next_offsets.items())]
    file = _File(
        format=FORMAT,
        minimum_index=kept.minimum_index,
        keep_days=kept.keep_days,
        chains=chains,
        partitions=partitions,
    )
    return msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n"


def parse_kept(data: bytes) -> Kept:
    """What a file says; raises IntegrityError when it is none of this format."""
    try:
        file = msgspec.json.decode(data, type=_File)
        heads = {tenant: Head(tseq, bytes.fromhex(chain)) for tenant, tseq, chain in file.chains}
    except (msgspec.MsgspecError, ValueError) as error:
        raise IntegrityError(f"the minimum index can't be read: {error}") from None
    fits = file.format == FORMAT and all(
        len(chain) == HASH_BYTES and 0 < tseq < _TSEQ_END and len(tenant.encode()) < _TENANT_BYTES_END
        for tenant, (tseq, chain) in heads.items()
    )
    if not fits or file.minimum_index < 0 or file.minimum_index % TILE_WIDTH:
        raise IntegrityError("the minimum index is not of this format, or not at the end of a bundle")
    next_offsets = {(topic, topic_id, number): offset for topic, topic_id, number, offset in file.partitions}
    return Kept(file.minimum_index, file.keep_days, heads, next_offsets)
