"""What a process does that folds apart: a job comes in, words go out, each behind its length.

When the sink is gone, its end of the pipe is: the process notices with its next word, about a second away at most. It
imports little: its start is part of every rebuild it is begun for.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from typing import BinaryIO

import msgspec

from sinks.redis.errands import Errand, Word, run_errands
from sinks.redis.slices import Slices
from streams.codec import Codec
from streams.kafka import KafkaReader
from streams.registry import RegistrySchemas

LENGTH_BYTES = 4
encode = msgspec.msgpack.Encoder().encode
word_of = msgspec.msgpack.Decoder(Word).decode


class Job(msgspec.Struct, frozen=True, array_like=True):
    """What a process is told."""

    bootstrap: str
    registry_url: str
    projection: str
    #: Holds and counters that it may keep in memory.
    entries_max: int
    errands: tuple[Errand, ...]


def work(given: BinaryIO, told: BinaryIO) -> None:
    """Do the job that is given and tell its words, each behind its length. Raises as run_errands does."""
    job = msgspec.msgpack.decode(given.read(), type=Job)
    slices = Slices(Codec(RegistrySchemas(job.registry_url)), job.projection)
    reader = KafkaReader(job.bootstrap, "quaestor-sink-redis-apart")
    try:
        for word in run_errands(job.errands, reader, slices, job.entries_max):
            body = encode(word)
            told.write(len(body).to_bytes(LENGTH_BYTES, "big") + body)
            told.flush()
    finally:
        reader.close()


if __name__ == "__main__":
    gc.disable()
    # Whoever is told to end, or has nobody to tell, just ends.
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        work(sys.stdin.buffer, sys.stdout.buffer)
