"""In which encoding a model counts its tokens, as far as that is published.

The source is the table of the package tiktoken, which a test holds this one against. Left out on purpose: models that
read more than the text of the request (audio, search, a prompt of their own), whose count no tokenizer gives.
"""

from __future__ import annotations

from functools import lru_cache

CL100K = "cl100k_base"
O200K = "o200k_base"
ENCODINGS = (CL100K, O200K)

FAMILIES = {
    "gpt-5": O200K,
    "gpt-4.5": O200K,
    "gpt-4.1": O200K,
    "gpt-4o": O200K,
    "chatgpt-4o": O200K,
    "o1": O200K,
    "o3": O200K,
    "o4-mini": O200K,
    "gpt-4": CL100K,
    "gpt-3.5-turbo": CL100K,
    "gpt-35-turbo": CL100K,
    "text-embedding-ada-002": CL100K,
    "text-embedding-3-small": CL100K,
    "text-embedding-3-large": CL100K,
}
MODELS_CACHED_MAX = 1_024
#: Words in the names of models that read more than their request says.
MORE_THAN_TEXT = ("audio", "realtime", "search", "transcribe", "tts", "image", "deep-research")


@lru_cache(maxsize=MODELS_CACHED_MAX)
def encoding_of(model: str) -> str | None:
    """The encoding of a model by its provider's name of it, dated, fine-tuned or resold; None when unknown."""
    name = model.removeprefix("openai/").removeprefix("azure/").removeprefix("ft:").partition(":")[0]
    if any(word in name for word in MORE_THAN_TEXT):
        return None
    if name.startswith("gpt-5"):
        return O200K
    while name:
        if name in FAMILIES:
            return FAMILIES[name]
        name = name.rpartition("-")[0]
    return None
