"""Makes a published audit log of made-up records in a folder, as large as wanted, without database and Kafka."""

from __future__ import annotations

from pathlib import Path

from processors.audit.checkpoint import Checkpoint, sign_checkpoint
from processors.audit.commitment import Salts
from processors.audit.edge import TreeEdge
from processors.audit.entry import LOG_TENANT, NO_HEAD, Head, Source, heads_source, seal
from processors.audit.heads import HeadsTree
from processors.audit.note import Signer
from processors.audit.tiles import TILE_WIDTH
from processors.audit.trust import Trust
from schemas.ids import derived_id

SIGNER = Signer("quaestor.local/audit/benchmark", bytes(32))
TRUST = Trust((SIGNER.verifier,))
SALTS = Salts(bytes(32))
TOPIC, TOPIC_ID, PARTITIONS, START_MICROS = "quaestor.requests", "topic-uuid-of-requests", 6, 1_700_000_000_000_000


def make_log(folder: Path, entries: int, batch: int, tenants: int) -> int:
    """Write it; its size, which is the first above `entries` at which a batch ends."""
    heads: dict[str, Head] = {}
    tree, edge, record = HeadsTree(), TreeEdge(), 0
    while edge.size < entries:
        sources = [_source(number, tenants) for number in range(record, record + batch)]
        record += batch
        sealed = seal(sources, edge.size, heads)
        tree.move({source.tenant_id: heads[source.tenant_id] for source in sources})
        own = {LOG_TENANT: heads.get(LOG_TENANT, NO_HEAD)}
        claim = heads_source(tree.commitment(), START_MICROS + record)
        sealed += seal([claim], edge.size + batch, own)
        heads |= own
        edge, files = edge.grow([each.entry for each in sealed])
        for tile, data in files:
            # The partial tiles of the last size are wanted, and which that is, is not known before.
            if tile.width == TILE_WIDTH or tile.level > 0 or edge.size >= entries:
                path = folder / tile.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
    note = sign_checkpoint(Checkpoint(SIGNER.name, edge.size, edge.root()), SIGNER)
    (folder / "checkpoint").write_text(note, encoding="utf-8")
    return edge.size


def _source(number: int, tenants: int) -> Source:
    tenant, (offset, partition) = f"tenant_{number % tenants}", divmod(number, PARTITIONS)
    commitment = SALTS.commitment(b"%d" % number, tenant, TOPIC_ID, partition, offset)
    event_id, request_id = derived_id("bench", str(number), "", ""), derived_id("bench", "request", str(number), "")
    return Source(
        tenant, TOPIC, TOPIC_ID, partition, offset, START_MICROS + number, 5, commitment, number, "USD",
        event_id, request_id, "COMPLETED",
    )  # fmt: skip
