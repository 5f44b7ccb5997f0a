"""A tenant's bundle: all its entries under one signed checkpoint, which it can check alone and in little memory.

Between two of its entries stand the hashes of the complete subtrees that fill the gap, so that all of it together gives
the signed root: one proof for all entries. The last entry of the log, one of heads, then commits to where the tenant's
chain stands, so that nothing is missing at either end. docs/reference/audit-format.md has the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from processors.audit.commitment import SALT_BYTES
from processors.audit.entry import (
    KIND_HEADS,
    LOG_TENANT,
    NO_HEAD,
    Entry,
    EntryError,
    Head,
    chain_hash,
    decode_entry,
)
from processors.audit.heads import HeadsProof, heads_commitment, heads_row
from processors.audit.merkle import HASH_BYTES, NodeReader, SparseTree, leaf_hash, perfect_subtrees
from processors.audit.note import NOTE_BYTES_MAX, NoteError
from processors.audit.proof_file import PATH_HASHES_MAX, ProofError, check_included
from processors.audit.trust import Signed, Trust
from schemas.errors import IntegrityError

MAGIC = b"quaestor/audit-export@v1\n"
EXTENSION = ".audit-export"
#: Gives so many bytes, fewer only at the end; raises what its file raises.
Read = Callable[[int], bytes]
#: Called with each entry of the tenant that was checked, and its salt when the bundle has them.
Take = Callable[[Entry, bytes | None], None]
_SIZE, _LENGTH, _POSITION = struct.Struct(">I"), struct.Struct(">H"), struct.Struct(">Q")
_HEAD = struct.Struct(">Q32sQQ32sB")


class ExportError(IntegrityError):
    """A bundle is malformed, or something of the tenant is missing, changed or foreign."""


class Export(NamedTuple):
    """A bundle that was checked from its first byte to its last."""

    tenant_id: str
    entries: int
    has_salts: bool
    signed: Signed


def write_start(note: str, tenant_id: str, *, has_salts: bool) -> bytes:
    """How a bundle begins."""
    text, tenant = note.encode("utf-8"), tenant_id.encode("utf-8")
    return b"".join([MAGIC, _SIZE.pack(len(text)), text, _LENGTH.pack(len(tenant)), tenant, bytes([has_salts])])


def write_entry(first: int, position: int, data: bytes, salt: bytes, node: NodeReader) -> bytes:
    """The entry at a position, after the hashes that fill the gap from `first` on; without a salt it is empty."""
    gap = [node(level, index) for level, index in perfect_subtrees(first, position)]
    return b"".join([_POSITION.pack(position), *gap, _LENGTH.pack(len(data)), data, salt])


def write_end(head: Head, proof: HeadsProof) -> bytes:
    """Where the tenant's chain stands, and its proof under the last heads entry, which was written before."""
    fixed = _HEAD.pack(head.tseq, head.chain, proof.position, proof.tenants, proof.root, len(proof.path))
    return b"".join([fixed, *proof.path])


def verify_export(read: Read, trust: Trust, take: Take | None = None) -> Export:
    """Check a bundle while it is read; raises ExportError saying what is wrong, and which entry.

    An entry that `take` was given belongs to the tenant and follows on the one before; that all of them are in the
    signed log is known only when this returns.
    """
    return _Check(read, trust, take).run()


class _Check:
    """One bundle being checked."""

    def __init__(self, read: Read, trust: Trust, take: Take | None) -> None:
        self._read = read
        self._trust = trust
        self._take = take
        self._tree = SparseTree()
        self._head = NO_HEAD

    def run(self) -> Export:
        """From the first byte to the last."""
        if self._read(len(MAGIC)) != MAGIC:
            raise ExportError("the file does not begin as a tenant's bundle")
        signed = self._checkpoint()
        tenant_id = _text(self._bytes(_LENGTH), "the tenant")
        flag = self._exactly(1)[0]
        if flag > 1:
            raise ExportError("the bundle's mark of salts is neither 0 nor 1")
        size = signed.checkpoint.size
        while True:
            position, data = self._entry(size)
            if position == size - 1:
                break
            self._check_entry(position, data, tenant_id, self._exactly(SALT_BYTES) if flag else None)
        self._check_end(_decoded(position, data), tenant_id)
        if self._read(1):
            raise ExportError("something follows the end of the bundle")
        if self._tree.root() != signed.checkpoint.root:
            raise ExportError(f"the entries and hashes do not give the root signed at {size} entries")
        return Export(tenant_id, self._head.tseq, bool(flag), signed)

    def _checkpoint(self) -> Signed:
        length: int = _SIZE.unpack(self._exactly(_SIZE.size))[0]
        if length > NOTE_BYTES_MAX:
            raise ExportError(f"the checkpoint has more than {NOTE_BYTES_MAX} bytes")
        try:
            signed = self._trust.open(_text(self._exactly(length), "the checkpoint"))
        except NoteError as error:
            raise ExportError(f"checkpoint: {error}") from error
        if signed.checkpoint.size == 0:
            raise ExportError("the checkpoint is of an empty log")
        return signed

    def _entry(self, size: int) -> tuple[int, bytes]:
        """The next entry's position and bytes, with what lies before it in the tree."""
        (position,) = _POSITION.unpack(self._exactly(_POSITION.size))
        if not self._tree.size <= position < size:
            raise ExportError(f"entry {position} stands after entry {self._tree.size - 1} in a log of {size}")
        for level, _ in perfect_subtrees(self._tree.size, position):
            self._tree.add(level, self._exactly(HASH_BYTES))
        data = self._bytes(_LENGTH)
        self._tree.add(0, leaf_hash(data))
        return position, data

    def _check_entry(self, position: int, data: bytes, tenant_id: str, salt: bytes | None) -> None:
        entry = _decoded(position, data)
        if entry.source.tenant_id != tenant_id:
            raise ExportError(f"entry {position} is one of {entry.source.tenant_id}, not of {tenant_id}")
        known = self._head.tseq
        if entry.tseq != known + 1:
            gap = f"the tenant's entries {known + 1} to {entry.tseq - 1} are withheld before it"
            words = gap if entry.tseq > known else f"it is the tenant's entry {entry.tseq}, after its entry {known}"
            raise ExportError(f"entry {position}: {words}")
        if entry.prev_chain != self._head.chain:
            raise ExportError(f"entry {position} does not continue the tenant's chain after its entry {known}")
        self._head = Head(entry.tseq, chain_hash(entry.prev_chain, leaf_hash(data)))
        if self._take is not None:
            self._take(entry, salt)

    def _check_end(self, heads: Entry, tenant_id: str) -> None:
        """The log's last entry commits to a row that says of the tenant what its entries here say."""
        if heads.source.tenant_id != LOG_TENANT or heads.source.kind != KIND_HEADS:
            raise ExportError(f"entry {heads.seq}, the log's last, is not one of heads")
        tseq, chain, position, tenants, root, count = _HEAD.unpack(self._exactly(_HEAD.size))
        if count > PATH_HASHES_MAX:
            raise ExportError(f"the path of the tenant's head has more than {PATH_HASHES_MAX} hashes")
        path = tuple(self._exactly(HASH_BYTES) for _ in range(count))
        if heads_commitment(tenants, root) != heads.source.commitment:
            raise ExportError(f"entry {heads.seq} does not commit to the heads that the bundle gives")
        row = leaf_hash(heads_row(tenant_id, Head(tseq, chain)))
        try:
            check_included(position, tenants, row, path, root, f"the head of {tenant_id}")
        except ProofError as error:
            raise ExportError(str(error)) from error
        if tseq != self._head.tseq:
            raise ExportError(
                f"the log has {tseq} entries of {tenant_id}, the bundle {self._head.tseq}: its last are withheld"
            )
        if chain != self._head.chain:
            raise ExportError(f"the last entry of {tenant_id} is not the one that the log's heads say")

    def _bytes(self, length: struct.Struct) -> bytes:
        return self._exactly(length.unpack(self._exactly(length.size))[0])

    def _exactly(self, count: int) -> bytes:
        data = self._read(count)
        if len(data) != count:
            raise ExportError("the bundle ends too early")
        return data


def _decoded(position: int, data: bytes) -> Entry:
    try:
        entry = decode_entry(data)
    except EntryError as error:
        raise ExportError(f"entry {position}: {error}") from error
    if entry.seq != position:
        raise ExportError(f"entry {position} says that it is entry {entry.seq}")
    return entry


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ExportError(f"{what} is not text") from None
