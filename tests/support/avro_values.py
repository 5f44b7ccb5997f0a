"""Hypothesis values of Avro types, for whatever encodes or decodes them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

#: Per topic and claim: drawing a record is what takes the time, and every claim is tried on all topics.
EXAMPLES = 40
LONGS = st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-200, 20_000), st.integers(1 << 41, 1 << 56))
PLAIN = {
    "string": st.text(max_size=200),
    "bytes": st.binary(max_size=200),
    "int": st.integers(-(1 << 31), (1 << 31) - 1),
    "long": LONGS,
    "boolean": st.booleans(),
    "double": st.floats(allow_nan=False),
    "null": st.none(),
}


def values(avro: Any) -> st.SearchStrategy[Any]:
    """Values of an Avro type, as decoding gives them."""
    if isinstance(avro, list):
        return st.one_of(*map(values, avro))
    kind = avro["type"] if isinstance(avro, dict) else avro
    match kind:
        case "enum":
            return st.sampled_from(avro["symbols"])
        case "record":
            return st.fixed_dictionaries({field["name"]: values(field["type"]) for field in avro["fields"]})
        case "array":
            return st.lists(values(avro["items"]), max_size=5)
        case "map":
            return st.dictionaries(st.text(max_size=20), values(avro["values"]), max_size=5)
    return PLAIN[kind]
