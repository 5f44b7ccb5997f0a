"""The tree of faults. Refusals that belong to the business are values, never exceptions.

QuaestorError
  x ConfigurationError      settings or local files are unusable: fix them and start again
  x CodecError              bytes that can't be read or an event that can't be written
    + UndecodableError      the bytes are not what their schema says
    + SchemaUnknownError    the registry does not know, or could not be asked for, a schema id
  x LogError                Kafka did not do what was asked
    + LogUnavailableError   it could not be reached or did not answer in time: try again
    + RecordRefusedError    it refused this record for good (too large, not authorised)
    + ReplacedError         a newer process of the same name took this one's place in its group: stop
  x StoreError              a store did not do what was asked
    + StoreUnavailableError it could not be reached or did not answer in time: try again
    + FencedError           another owner has taken this partition: stop
    + GapError              the store's cursor is not where the batch begins: seek to it
    + RejectedError         the store will never take some records of a batch: quarantine them
  x IntegrityError          two things that must agree do not: stop, never skip
"""

from __future__ import annotations

from typing import NamedTuple


class QuaestorError(Exception):
    """Something went wrong in Quaestor; the docstring of the subclass is the default message."""

    def __init__(self, message: str | None = None) -> None:
        """Use the class's docstring when no message is given."""
        super().__init__(message or (type(self).__doc__ or "").strip())


class ConfigurationError(QuaestorError):
    """Settings or local files are unusable."""


class CodecError(QuaestorError):
    """An event could not be encoded or decoded."""


class UndecodableError(CodecError):
    """The bytes are not what their schema says."""


class SchemaUnknownError(CodecError):
    """No schema is known for this id."""

    def __init__(self, schema_id: int, message: str | None = None) -> None:
        """Carry the id that was asked for."""
        super().__init__(message or f"no schema is known for id {schema_id}")
        self.schema_id = schema_id


class LogError(QuaestorError):
    """Kafka did not do what was asked."""


class LogUnavailableError(LogError):
    """Kafka could not be reached or did not answer in time."""


class RecordRefusedError(LogError):
    """Kafka refused a record for good."""


class ReplacedError(LogError):
    """A newer process of the same instance name took this one's place in its group."""


class StoreError(QuaestorError):
    """A store did not do what was asked."""


class StoreUnavailableError(StoreError):
    """A store could not be reached or did not answer in time."""


class FencedError(StoreError):
    """Another owner has taken this partition."""

    def __init__(self, what: str, epoch: int) -> None:
        """Carry what was owned and the epoch that is no longer valid."""
        super().__init__(f"{what}: epoch {epoch} was fenced by a newer owner")
        self.what = what
        self.epoch = epoch


class GapError(StoreError):
    """The store's cursor is not where the batch begins."""

    def __init__(self, what: str, cursor: int, first_offset: int) -> None:
        """Carry where the store stands and where the batch begins."""
        super().__init__(f"{what}: the store stands at {cursor}, the batch begins at {first_offset}")
        self.what = what
        self.cursor = cursor
        self.first_offset = first_offset


class Rejection(NamedTuple):
    """One record a store will never take, by its position in the log, and why (one line without record content)."""

    topic: str
    partition: int
    offset: int
    detail: str
    #: Whether the record breaks a rule of ours (SEMANTIC) rather than one of the store (SINK_REJECT).
    semantic: bool = False


class RejectedError(StoreError):
    """A store will never take some records of a batch; nothing of the batch was applied."""

    def __init__(self, rejections: tuple[Rejection, ...]) -> None:
        """Carry every record that was refused, at least one."""
        first = rejections[0]
        where = f"{first.topic}/{first.partition}@{first.offset}"
        super().__init__(f"{len(rejections)} refused, first {where}: {first.detail}")
        self.rejections = rejections


class IntegrityError(QuaestorError):
    """Two things that must agree do not."""
