"""What is to be called when: recorded traces (CSV: TIMESTAMP, ContextTokens, GeneratedTokens) and made mixes."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from schemas.errors import ConfigurationError

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
WORDS = ("ledger", "orbit", "harbour", "quartz", "meadow", "signal", "copper", "lantern", "river", "summit")
FEATURES = ("search", "summary", "support", "review")
TRACE_ROWS_MAX = 10_000_000
#: Of the made mix: embeddings calls, streamed chats, calls that name an end user.
EMBEDDING_SHARE = 0.08
STREAM_SHARE = 0.35
USER_SHARE = 0.5
EMBEDDING_MODEL = "sim-embedding"


@dataclass(frozen=True)
class Call:
    """One request to make."""

    #: Counted from 0 over the run.
    index: int
    #: When it is due, seconds after the start of the run.
    due_seconds: float
    #: Size of the prompt, tokens (words, as the simulated provider counts).
    input_tokens: int
    #: Output asked for, tokens.
    output_tokens: int
    #: Model or alias.
    model: str
    #: Whether the answer is streamed.
    stream: bool
    #: Which of the run's keys it uses.
    key_index: int = 0
    #: Value of x-quaestor-tags; none when empty.
    tags: str = ""
    #: Body field `user`; none when empty.
    user: str = ""
    #: Whether it is an embeddings call.
    embedding: bool = False


def read_trace(path: Path, speed: float, limit: int | None, model: str, stream_share: float) -> list[Call]:
    """The calls of a recorded trace, `speed` times as fast; raises ConfigurationError naming the line that is wrong.

    Seven-digit fractions of a second, as in the public Azure traces, are cut to microseconds.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(islice(_rows(path, csv.DictReader(file)), limit or TRACE_ROWS_MAX))
    except OSError as error:
        raise ConfigurationError(f"cannot read the trace {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"cannot read the trace {path}: it is not UTF-8 ({error.reason})") from None
    if not rows:
        raise ConfigurationError(f"the trace {path} has no rows; it needs the columns {', '.join(COLUMNS)}")
    start = rows[0][0]
    return [
        Call(
            index=index,
            due_seconds=max(0.0, (at - start) / speed),
            input_tokens=context,
            output_tokens=generated,
            model=model,
            stream=_spread(index, stream_share),
        )
        for index, (at, context, generated) in enumerate(rows)
    ]


def _rows(path: Path, reader: Iterable[dict[str, str]]) -> Iterator[tuple[float, int, int]]:
    for line, row in enumerate(reader, 2):
        try:
            yield _seconds(row["TIMESTAMP"]), max(1, int(row["ContextTokens"])), max(1, int(row["GeneratedTokens"]))
        except (KeyError, TypeError, ValueError):
            raise ConfigurationError(f"{path}:{line}: expected the columns {', '.join(COLUMNS)}") from None


def _seconds(text: str) -> float:
    whole, _, fraction = text.strip().partition(".")
    moment = datetime.fromisoformat(whole).replace(tzinfo=UTC)
    return moment.timestamp() + (int(fraction[:6].ljust(6, "0")) / 1_000_000 if fraction else 0.0)


def _spread(index: int, share: float) -> bool:
    """True for `share` of all indices, evenly."""
    return int((index + 1) * share) > int(index * share)


def mixed_calls(count: int, rate_per_second: float, seed: int, keys: int, models: tuple[str, ...]) -> list[Call]:
    """A realistic mix for demonstrations: short chats, long contexts, streams and embeddings, over several keys.

    Token counts are log-normal with the shape of the public Azure conversation trace (median about 1,000 in, 130 out).
    """
    source = random.Random(seed)  # noqa: S311 - a seeded mix, not a secret
    return [_mixed_call(source, index, index / rate_per_second, keys, models) for index in range(count)]


def _mixed_call(source: random.Random, index: int, due_seconds: float, keys: int, models: tuple[str, ...]) -> Call:
    embedding = source.random() < EMBEDDING_SHARE
    return Call(
        index=index,
        due_seconds=due_seconds,
        input_tokens=min(8_000, max(5, int(source.lognormvariate(6.2, 1.0)))),
        output_tokens=min(1_000, max(1, int(source.lognormvariate(4.5, 0.8)))),
        model=EMBEDDING_MODEL if embedding else models[min(len(models) - 1, int(source.expovariate(1.2)))],
        stream=not embedding and source.random() < STREAM_SHARE,
        key_index=min(keys - 1, int(source.expovariate(0.9))),
        tags=f"feature={source.choice(FEATURES)}",
        user=f"person-{source.randrange(40)}@example.com" if source.random() < USER_SHARE else "",
        embedding=embedding,
    )


def prompt(tokens: int, index: int) -> str:
    """A prompt of that many words, its first ones differing from call to call."""
    head = [WORDS[(index >> shift) % len(WORDS)] for shift in (0, 3, 6)][:tokens]
    return " ".join([*head, *["word"] * (tokens - len(head))])
