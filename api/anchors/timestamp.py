"""TimestampAnchor: a time stamp authority (RFC 3161) signs that a checkpoint was there by then.

Tokens lie beside the checkpoints in a folder: `<size>.checkpoint` and `<size>.tsr`, which `openssl ts -verify` reads.
"""

from __future__ import annotations

import asyncio
import re
from hashlib import sha256
from pathlib import Path

import aiohttp
from cryptography import x509
from rfc3161_client import (
    HashAlgorithm,
    PKIStatus,
    TimeStampRequest,
    TimestampRequestBuilder,
    TimeStampResponse,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from schemas.errors import ConfigurationError, IntegrityError, StoreUnavailableError
from schemas.limits import ANCHOR_TIMEOUT_SECONDS, CONNECT_TIMEOUT_SECONDS
from sinks.audit.anchors.seam import Anchored, is_new
from sinks.audit.files import disk, read_note, sync_folders, write_durable

QUERY, REPLY = "application/timestamp-query", "application/timestamp-reply"
TOKEN_BYTES_MAX = 64 * 1024
OK = 200
_NAME = re.compile(r"(0|[1-9]\d{0,18})\.tsr")


class TimestampAnchor:
    """An Anchor whose keeper is a folder here, and whose witness is the authority's signature."""

    def __init__(self, url: str, folder: Path, roots: Path | None = None) -> None:
        """`roots`: PEM certificates that the authority's must lead to; without them its signature is not checked.

        Make it inside the loop that will use it. Raises ConfigurationError when the roots can't be read.
        """
        self.name = f"rfc3161:{url}"
        self._url = url
        self._folder = folder
        self._roots = [] if roots is None else _roots(roots)
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=ANCHOR_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def put(self, note: str, now_micros: int) -> None:  # noqa: ARG002 - the authority's clock counts
        """As the seam says."""
        newest = await asyncio.to_thread(self._newest)
        if not is_new(note, newest):
            return
        data = note.encode("utf-8")
        request = TimestampRequestBuilder().data(data).hash_algorithm(HashAlgorithm.SHA256).build()
        token = await self._ask(request.as_bytes())
        self._stamped(token, data, request)
        await asyncio.to_thread(self._keep, Anchored(note, 0).checkpoint.size, data, token)

    async def kept(self) -> list[Anchored]:
        """As the seam says."""
        return await asyncio.to_thread(lambda: [self._read(size) for size in self._sizes()])

    async def close(self) -> None:
        """As the seam says."""
        await self._session.close()

    async def _ask(self, query: bytes) -> bytes:
        headers = {"content-type": QUERY, "accept": REPLY}
        try:
            async with self._session.post(self._url, data=query, headers=headers, allow_redirects=False) as answer:
                data = await answer.content.read(TOKEN_BYTES_MAX + 1)
                while len(data) <= TOKEN_BYTES_MAX and (more := await answer.content.read(TOKEN_BYTES_MAX)):
                    data += more
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise StoreUnavailableError(f"{self.name}: no answer: {type(error).__name__}") from None
        if answer.status != OK or len(data) > TOKEN_BYTES_MAX:
            raise StoreUnavailableError(f"{self.name}: answered {answer.status} with {len(data)} bytes")
        return data

    def _stamped(self, token: bytes, data: bytes, request: TimeStampRequest | None = None) -> int:
        """When the authority stamped these bytes, microseconds; raises IntegrityError when it did not."""
        try:
            answer = decode_timestamp_response(token)
            if answer.status not in {PKIStatus.GRANTED, PKIStatus.GRANTED_WITH_MODS}:
                raise StoreUnavailableError(f"{self.name}: refused: {'; '.join(answer.status_string) or answer.status}")
            stamped = answer.tst_info
        except ValueError as error:
            raise IntegrityError(f"{self.name}: the time stamp can't be read ({error})") from None
        if stamped.message_imprint.message != sha256(data).digest():
            raise IntegrityError(f"{self.name}: the time stamp is of something else")
        if request is not None and stamped.nonce != request.nonce:
            raise IntegrityError(f"{self.name}: the time stamp answers another question")
        self._verify(answer, data)
        return int(stamped.gen_time.timestamp()) * 1_000_000

    def _verify(self, answer: TimeStampResponse, data: bytes) -> None:
        if not self._roots:
            return
        builder = VerifierBuilder(roots=self._roots)
        try:
            builder.build().verify_message(answer, data)
        except VerificationError as error:
            raise IntegrityError(f"{self.name}: the time stamp's signature is not the authority's ({error})") from None

    def _sizes(self) -> list[int]:
        found = (_NAME.fullmatch(path.name) for path in self._folder.glob("*.tsr"))
        return sorted(int(match[1]) for match in found if match)

    def _newest(self) -> Anchored | None:
        sizes = self._sizes()
        return self._read(sizes[-1]) if sizes else None

    def _read(self, size: int) -> Anchored:
        path = self._folder / f"{size}.checkpoint"
        note = read_note(path)
        if note is None:
            raise IntegrityError(f"{path} is missing: {size}.tsr is of it")
        with disk(path):
            token = path.with_suffix(".tsr").read_bytes()
        found = Anchored(note, self._stamped(token, note.encode("utf-8")))
        if found.checkpoint.size != size:
            raise IntegrityError(f"{path} is over {found.checkpoint.size} entries")
        return found

    def _keep(self, size: int, data: bytes, token: bytes) -> None:
        with disk(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            for name, content in ((f"{size}.checkpoint", data), (f"{size}.tsr", token)):
                write_durable(self._folder / name, content)
            sync_folders([self._folder, self._folder.parent])


def _roots(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the roots {path} of a time stamp authority can't be read: {error}") from None
