"""What a broker's error codes mean to a publisher."""

from __future__ import annotations

from confluent_kafka import KafkaError

from streams.kafka import configuration

#: Our own, where no answer came: the batch may stand.
NO_ANSWER = KafkaError._FAIL  # noqa: SLF001 - the client's name of it
#: The batch stands; the second, since an earlier try at it.
STANDS = frozenset({KafkaError.NO_ERROR, KafkaError.DUPLICATE_SEQUENCE_NUMBER})
#: No repetition cures these.
REFUSALS = configuration.REFUSALS
#: The broker does not know the producer or its numbers any more: it goes on as another one.
STRANGERS = frozenset(
    {
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.UNKNOWN_PRODUCER_ID,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
        KafkaError.PRODUCER_FENCED,
    }
)


def text(code: int) -> str:
    """An error code, for people."""
    return str(KafkaError(code).str())
