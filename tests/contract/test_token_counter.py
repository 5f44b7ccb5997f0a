"""The seam of token counters: tiktoken with its real ranks and the fake in memory behave the same."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import tiktoken.model
import tiktoken_ext.openai_public
from structlog.testing import capture_logs

from api.providers.tiktoken import PATTERNS, SHA256, TiktokenCounter
from api.providers.tokens import MemoryTokenCounter, TokenCounter
from processors.encodings import CL100K, ENCODINGS, FAMILIES, O200K, encoding_of
from schemas.limits import COUNTED_BYTES_MAX

SEED = 119
SIZE = COUNTED_BYTES_MAX // 4


@pytest.fixture(scope="module")
def real() -> TiktokenCounter:
    """Loaded once: it takes a second."""
    return TiktokenCounter()


@pytest.fixture(params=["memory", "tiktoken"])
def counter(request: pytest.FixtureRequest, real: TiktokenCounter) -> TokenCounter:
    """Each of them."""
    return real if request.param == "tiktoken" else MemoryTokenCounter()


def letters(random: Random) -> str:
    """A long word that nobody ever wrote."""
    return "".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=SIZE))


#: Texts that took tokenizers minutes, or their stack.
LONG: dict[str, Callable[[Random], str]] = {
    "one letter": lambda _: "a" * SIZE,
    "letters": letters,
    "spaces": lambda _: " " * SIZE,
    "spaces and a letter": lambda _: " " * SIZE + "a",
    "line ends": lambda _: "\n" * SIZE,
    "underscores": lambda _: "_" * SIZE,
    "any character": lambda random: "".join(chr(random.randrange(0x4E00, 0x9FFF)) for _ in range(SIZE)),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("text", ["hello world", "é", "預算", "<|endoftext|>", "\x00", "😀👩‍👩‍👧"])
def test_tokens_are_never_more_than_bytes(counter: TokenCounter, encoding: str, text: str) -> None:
    """Nor none, of any text."""
    tokens = counter.count(encoding, [text])

    assert tokens is not None
    assert 0 < tokens <= len(text.encode())


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_each_text_counts_by_itself(counter: TokenCounter, encoding: str) -> None:
    """Nothing is merged across texts; no text, or an empty one, has no token."""
    one, two = counter.count(encoding, ["some"]), counter.count(encoding, ["thing else"])

    assert one is not None
    assert two is not None
    assert one + two == counter.count(encoding, ["some", "", "thing else"])
    assert 0 == counter.count(encoding, [])


def test_an_encoding_nobody_has_is_none(counter: TokenCounter) -> None:
    """A value: the bytes stand."""
    assert None is counter.count("", ["text"])


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", LONG)
@pytest.mark.timeout(30)
def test_long_texts_without_words_are_counted(counter: TokenCounter, encoding: str, name: str) -> None:
    """In a time that grows with their length, not with its square: one of these took minutes."""
    text = LONG[name](Random(SEED))
    tokens = counter.count(encoding, [text])

    assert tokens is not None, f"seed {SEED}"
    assert 0 < tokens <= len(text.encode()), f"seed {SEED}"


@pytest.mark.parametrize(("encoding", "tokens"), [(CL100K, [6, 9]), (O200K, [6, 8])])
def test_a_count_is_openais(real: TiktokenCounter, encoding: str, tokens: list[int]) -> None:
    """Of texts whose tokens OpenAI's cookbook shows."""
    assert tokens == [real.count(encoding, [text]) for text in ("tiktoken is great!", "お誕生日おめでとう")]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_pattern_and_hash_are_tiktokens(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stand twice; here they are compared."""
    stated: list[str] = []

    def loaded(_: str, expected_hash: str) -> dict[bytes, int]:
        stated.append(expected_hash)
        return {}

    monkeypatch.setattr(tiktoken_ext.openai_public, "load_tiktoken_bpe", loaded)
    fields: dict[str, Any] = tiktoken_ext.openai_public.ENCODING_CONSTRUCTORS[encoding]()

    assert ([SHA256[encoding]], PATTERNS[encoding]) == (stated, fields["pat_str"])


@pytest.mark.parametrize("model", [*FAMILIES, *(f"{name}-2026-01-01" for name in FAMILIES), "gpt-4o-mini", "o3-mini"])
def test_families_are_tiktokens(model: str) -> None:
    """Each name of our table has the encoding that tiktoken's has, or tiktoken does not know it."""
    try:
        expected: str | None = tiktoken.model.encoding_name_for_model(model)
    except KeyError:
        expected = encoding_of(model)

    assert expected == encoding_of(model)


@pytest.fixture
def altered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a package whose ranks are not OpenAI's."""
    data = tmp_path / "altered_ranks" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").touch()
    (data / f"{O200K}.tiktoken.gz").write_bytes(gzip.compress(b"YQ== 0\n"))
    monkeypatch.syspath_prepend(tmp_path)
    yield "altered_ranks"
    sys.modules.pop("altered_ranks", None)


@pytest.mark.parametrize(("package", "event"), [("", "token_ranks_differ"), ("no_such_ranks", "token_ranks_missing")])
def test_ranks_that_are_not_openais_are_not_used(altered: str, package: str, event: str) -> None:
    """A count would be wrong: there is none, and the log says why."""
    with capture_logs() as logs:
        tokens = TiktokenCounter(package or altered).count(O200K, ["text"])

    assert (None, event) == (tokens, logs[0]["event"])
