"""Checks files that prove something about an audit log, with nothing but the log's public key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from processors.audit import export, opening, proof_file
from processors.audit.export import Export, verify_export
from processors.audit.opening import check_opening, parse_opening
from processors.audit.proof_file import Receipt, parse_proof, verify_proof
from processors.audit.trust import Trust
from schemas.errors import ConfigurationError


@dataclass(frozen=True)
class CheckedReceipt:
    """A receipt that proves its entry."""

    receipt: Receipt
    #: The record's value bytes, when an opening lies beside the receipt and opens the entry; None for a null value too.
    value: bytes | None
    is_opened: bool


def check_file(path: Path, trust: Trust) -> CheckedReceipt | Export:
    """Check a receipt (with the opening that lies beside it, if any) or a tenant's bundle.

    Raises IntegrityError saying what is wrong with it, ConfigurationError when it can't be read.
    """
    try:
        with path.open("rb") as file:
            if file.peek(len(export.MAGIC)).startswith(export.MAGIC):
                return verify_export(file.read, trust)
            receipt = verify_proof(parse_proof(file.read(proof_file.PROOF_BYTES_MAX + 1)), trust)
        return _opened(receipt, opening_path(path))
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror}") from error


def _opened(receipt: Receipt, path: Path) -> CheckedReceipt:
    if not path.is_file():
        return CheckedReceipt(receipt, None, is_opened=False)
    with path.open("rb") as file:
        found = parse_opening(file.read(opening.OPENING_BYTES_MAX + 1))
    check_opening(found, receipt.entry)
    return CheckedReceipt(receipt, found.value, is_opened=True)


def opening_path(path: Path) -> Path:
    """Where the opening of a receipt lies."""
    return path.with_name(path.name.removesuffix(proof_file.EXTENSION) + opening.EXTENSION)
