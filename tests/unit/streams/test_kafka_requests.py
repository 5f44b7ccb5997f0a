"""Questions to brokers and their answers, beside another client's idea of the same protocol."""

from __future__ import annotations

import pytest
from aiokafka.protocol.metadata import MetadataRequest_v4, MetadataResponse_v4
from aiokafka.protocol.produce import ProduceRequest_v7, ProduceResponse_v7
from aiokafka.protocol.transaction import InitProducerIdRequest_v0, InitProducerIdResponse_v0

from streams.kafka import requests
from streams.kafka.requests import Cluster, Identity

TOPIC_UNKNOWN = 3


def test_questions_are_those_of_another_client() -> None:
    """Byte for byte."""
    batches = {"a": [(0, b"first"), (3, b"second")], "b": [(1, b"third")]}
    theirs = ProduceRequest_v7(None, -1, 2_500, [(topic, list(each)) for topic, each in batches.items()])

    assert theirs.encode() == b"".join(requests.produce_question(batches, 2_500))
    assert MetadataRequest_v4(["a", "bc"], False).encode() == requests.metadata_question(["a", "bc"])
    assert InitProducerIdRequest_v0(None, -1).encode() == requests.producer_id_question()


def test_a_cluster_is_read() -> None:
    """Brokers, the leader of each partition in the order of the partitions, and topics that can't be told of."""
    answer = MetadataResponse_v4(
        0,
        [(1, "one.test", 9092, None), (2, "two.test", 9093, "rack")],
        "cluster",
        1,
        [
            (0, "a", False, [(0, 1, 2, [1, 2], [2]), (5, 0, -1, [1], [1]), (0, 2, 1, [], [])]),
            (TOPIC_UNKNOWN, "nowhere", False, []),
        ],
    ).encode()

    assert requests.read_cluster(answer) == Cluster(
        {1: ("one.test", 9092), 2: ("two.test", 9093)}, {"a": [None, 2, 1]}, {"nowhere": TOPIC_UNKNOWN}
    )


@pytest.mark.parametrize(("error", "said"), [(0, Identity(4_000_000_000, 7)), (15, 15)])
def test_an_identity_or_why_there_is_none(error: int, said: Identity | int) -> None:
    """The producer's id and epoch, else the error code."""
    assert said == requests.read_identity(InitProducerIdResponse_v0(0, error, 4_000_000_000, 7).encode())


def test_every_partition_has_its_outcome() -> None:
    """The error code of each, by topic and number."""
    answer = ProduceResponse_v7([("a", [(0, 0, 17, -1, 0), (3, 6, -1, -1, -1)]), ("b", [(1, 45, 0, 0, 0)])], 0)

    assert {("a", 0): 0, ("a", 3): 6, ("b", 1): 45} == requests.read_produced(answer.encode())


@pytest.mark.parametrize("read", [requests.read_cluster, requests.read_identity, requests.read_produced])
@pytest.mark.parametrize("answer", [b"", b"\x7f\xff\xff\xff", b"\0\0\0\1\0"])
def test_what_is_no_answer_is_said_to_be_none(read: object, answer: bytes) -> None:
    """Nothing is made up of bytes that end early, or of a list longer than they are."""
    with pytest.raises(requests.MALFORMED):
        read(answer)  # type: ignore[operator] # one of three functions
