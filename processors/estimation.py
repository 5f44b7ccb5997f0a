"""Token counts without a tokenizer: the bound a hold needs, and the estimate used when a provider reports no usage.

The bound: a token of text stands for at least one byte of it, and the JSON text of a request is never shorter than the
text it carries (an escape is longer than what it means; a message's frame of a few tokens is longer in JSON). So the
bytes of the body bound the tokens of its text. Media given by reference cost tokens that no byte shows: each counts as
MEDIA_TOKENS_BOUND, above what the list of current models takes for the largest picture.

The estimate: four bytes make a token, rounded up. It is marked as one wherever it stands.
"""

from __future__ import annotations

BYTES_PER_TOKEN_ESTIMATED = 4
MEDIA_TOKENS_BOUND = 48_000
#: Types of content parts that carry media.
MEDIA_PARTS = (b'"image_url"', b'"input_image"', b'"input_audio"', b'"file"', b'"input_file"', b'"video_url"')

#: One of these stands in every type above: a quick look spares most requests the count.
MEDIA_MARKS = (b'_url"', b'"input_', b'file"')


def input_tokens_bound(body: bytes, context_tokens: int | None = None) -> int:
    """At least as many input tokens as any provider counts for this request body; never above the model's context."""
    bound = len(body)
    if any(mark in body for mark in MEDIA_MARKS):
        bound += sum(body.count(part) for part in MEDIA_PARTS) * MEDIA_TOKENS_BOUND
    return bound if context_tokens is None else min(bound, context_tokens)


def output_tokens_bound(asked: int | None, choices: int, model_max: int | None, default: int) -> int:
    """At least as many output tokens as the answer may have, all choices together.

    What the caller asked for bounds it; else the most the model gives, else the default. A caller may ask for more than
    the model gives, so the smaller of both counts.
    """
    if asked is None:
        return (model_max or default) * choices
    return (asked if model_max is None else min(asked, model_max)) * choices


def tokens_estimated(text_bytes: int) -> int:
    """About as many tokens as a text of this many bytes has, rounded up."""
    return -(-text_bytes // BYTES_PER_TOKEN_ESTIMATED)
