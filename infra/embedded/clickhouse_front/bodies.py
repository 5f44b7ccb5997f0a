"""Request bodies: content encodings undone within a bound, and multipart forms taken apart."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

import lz4.frame

from infra.embedded.clickhouse_front.faults import BAD_ARGUMENTS, NOT_IMPLEMENTED, TOO_MANY_BYTES, FrontError

NAME = re.compile(rb'[; ]name="([^"]*)"', re.IGNORECASE)
FILE_NAME = re.compile(rb"[; ]filename\*?=", re.IGNORECASE)
BOUNDARY = re.compile(r'boundary=(?:"([^"]+)"|([^;]+))', re.IGNORECASE)
PARTS_MAX = 1_000


@dataclass(frozen=True)
class FilePart:
    """One uploaded file of a form."""

    name: str
    data: bytes


def decompress(body: bytes, encoding: str, bytes_max: int) -> bytes:
    """The body without its content encoding; raises FrontError for an unknown one, damage, or too many bytes."""
    try:
        plain, rest = _decompress(body, encoding, bytes_max)
    except (zlib.error, RuntimeError, EOFError) as error:
        raise FrontError(BAD_ARGUMENTS, f"the body is not {encoding}: {error}") from error
    if rest:
        raise FrontError(TOO_MANY_BYTES, f"the body is larger than {bytes_max} bytes")
    return plain


def _decompress(body: bytes, encoding: str, bytes_max: int) -> tuple[bytes, bool]:
    """The plain bytes, and whether there were more than the bound."""
    if encoding in {"", "identity"}:
        return body, len(body) > bytes_max
    if encoding in {"gzip", "deflate"}:
        inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        return inflater.decompress(body, bytes_max), bool(inflater.unconsumed_tail)
    if encoding == "lz4":
        plain = b""
        while body:
            # A stream of frames: the client closes one frame per block.
            frame = lz4.frame.LZ4FrameDecompressor()
            plain += frame.decompress(body, bytes_max - len(plain) + 1)
            if not frame.eof:
                return plain, True
            body = frame.unused_data or b""
        return plain, len(plain) > bytes_max
    if encoding == "zstd":
        return _zstd(body, bytes_max)
    raise FrontError(NOT_IMPLEMENTED, f"content encoding {encoding} is not served; use lz4, zstd, gzip or none")


def _zstd(body: bytes, bytes_max: int) -> tuple[bytes, bool]:
    try:
        from backports import zstd  # noqa: PLC0415 - optional; in the standard library from Python 3.14
    except ImportError:
        raise FrontError(NOT_IMPLEMENTED, "zstd is not installed here; use lz4, gzip or none") from None
    plain = b""
    while body:
        frame = zstd.ZstdDecompressor()
        try:
            plain += frame.decompress(body, bytes_max - len(plain) + 1)
        except zstd.ZstdError as error:
            raise RuntimeError(str(error)) from error
        if not frame.eof:
            return plain, True
        body = frame.unused_data
    return plain, len(plain) > bytes_max


def read_form(content_type: str, body: bytes) -> tuple[dict[str, str], list[FilePart]]:
    """Fields and files of a multipart form; raises FrontError when it is damaged or has too many parts."""
    found = BOUNDARY.search(content_type)
    if found is None:
        raise FrontError(BAD_ARGUMENTS, "the form has no boundary")
    boundary = b"\r\n--" + (found.group(1) or found.group(2)).strip().encode("latin-1")
    parts = (b"\r\n" + body).split(boundary)[1:]
    if len(parts) > PARTS_MAX or not parts or not parts[-1].startswith(b"--"):
        raise FrontError(BAD_ARGUMENTS, "the form is cut off or has too many parts")
    fields: dict[str, str] = {}
    files: list[FilePart] = []
    for part in parts[:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = NAME.search(head)
        if name is None:
            raise FrontError(BAD_ARGUMENTS, "a part of the form has no name")
        if FILE_NAME.search(head):
            files.append(FilePart(name.group(1).decode(), content))
        else:
            fields[name.group(1).decode()] = content.decode()
    return fields, files
