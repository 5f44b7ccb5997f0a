"""S3Anchor: objects under COMPLIANCE lock in a bucket: nobody can delete them in their time, not even its owner."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import aiohttp
from yarl import URL

from api.anchors.sigv4 import Credentials, quoted_path, quoted_query, signed_headers
from api.providers.errors import SecretUnavailableError
from api.providers.secrets import Secrets
from schemas.errors import IntegrityError, StoreUnavailableError
from schemas.limits import ANCHOR_ANSWER_BYTES_MAX, ANCHOR_TIMEOUT_SECONDS, CONNECT_TIMEOUT_SECONDS
from sinks.audit.anchors.seam import Anchored, is_new

SIZE_DIGITS = 19
PAGE_KEYS = 1_000
OK, PRECONDITION_FAILED, CONFLICT = 200, 412, 409
_SIZE = re.compile(rf"\d{{{SIZE_DIGITS}}}")


@dataclass(frozen=True)
class S3Options:
    """Where the bucket is and how its objects are locked."""

    endpoint: str
    region: str
    bucket: str
    #: Empty, or ending in a slash.
    prefix: str
    retain_days: int
    #: env:NAME or file:PATH.
    access_key_ref: str
    secret_key_ref: str


@dataclass(frozen=True)
class _Version:
    key: str
    version_id: str
    modified_micros: int


class S3Anchor:
    """An Anchor in a bucket with Object Lock: one object per checkpoint, its key the size in 19 digits.

    All versions are read, not only the newest: what was locked stays there whatever was put over it.
    """

    def __init__(self, options: S3Options, clock_seconds: Callable[[], float] = time.time) -> None:
        """Make it inside the loop that will use it; connects nothing yet."""
        self.name = f"s3://{options.bucket}/{options.prefix}"
        self._options = options
        self._secrets = Secrets()
        self._clock_seconds = clock_seconds
        self._host = URL(options.endpoint).authority
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=ANCHOR_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def put(self, note: str, now_micros: int) -> None:
        """As the seam says."""
        size = Anchored(note, now_micros).checkpoint.size
        key = f"{self._options.prefix}{size:0{SIZE_DIGITS}}"
        before = f"{self._options.prefix}{max(size - 1, 0):0{SIZE_DIGITS}}"
        at_or_after = await self._page({"key-marker": before})
        for version in _versions(at_or_after, self._options.prefix):
            if not is_new(note, await self._get(version)):
                return
        until = datetime.fromtimestamp(self._clock_seconds(), UTC) + timedelta(days=self._options.retain_days)
        body = note.encode("utf-8")
        headers = {
            # S3 wants a digest of the body with every lock; this is the one that all of its kin know.
            "content-md5": base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode("ascii"),
            "content-type": "text/plain; charset=utf-8",
            "if-none-match": "*",
            "x-amz-object-lock-mode": "COMPLIANCE",
            "x-amz-object-lock-retain-until-date": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        status, answer = await self._call("PUT", f"/{self._options.bucket}/{key}", {}, headers, body)
        if status not in {OK, PRECONDITION_FAILED, CONFLICT}:
            raise _refused("PUT", status, answer)
        if status != OK:
            raise StoreUnavailableError(f"{self.name}: another process puts {key} at the same time")

    async def kept(self) -> list[Anchored]:
        """As the seam says."""
        found: list[Anchored] = []
        marker: dict[str, str] = {}
        while True:
            page = await self._page(marker)
            found += [await self._get(version) for version in _versions(page, self._options.prefix)]
            if page.findtext("IsTruncated") != "true":
                # A key has several versions where somebody put one over it: each is to be judged.
                return sorted(found, key=lambda each: each.checkpoint.size)
            names = (("key-marker", "NextKeyMarker"), ("version-id-marker", "NextVersionIdMarker"))
            marker = {name: page.findtext(tag) or "" for name, tag in names}

    async def close(self) -> None:
        """As the seam says."""
        await self._session.close()

    async def _page(self, marker: Mapping[str, str]) -> ET.Element:
        query = {"versions": "", "prefix": self._options.prefix, "max-keys": str(PAGE_KEYS)} | dict(marker)
        status, answer = await self._call("GET", f"/{self._options.bucket}", query, {}, b"")
        if status != OK:
            raise _refused("GET ?versions", status, answer)
        try:
            # Without their namespace, which not all of S3's kin send.
            return ET.fromstring(re.sub(rb' xmlns="[^"]*"', b"", answer))  # noqa: S314 - bounded, and expat stops bombs
        except ET.ParseError as error:
            raise StoreUnavailableError(f"{self.name}: the answer is no XML ({error})") from None

    async def _get(self, version: _Version) -> Anchored:
        query = {"versionId": version.version_id} if version.version_id else {}
        status, answer = await self._call("GET", f"/{self._options.bucket}/{version.key}", query, {}, b"")
        if status != OK:
            raise _refused(f"GET {version.key}", status, answer)
        found = Anchored(answer.decode("utf-8", "replace"), version.modified_micros)
        if not version.key.endswith(f"{found.checkpoint.size:0{SIZE_DIGITS}}"):
            raise IntegrityError(f"{self.name}: {version.key} holds a checkpoint over {found.checkpoint.size} entries")
        return found

    async def _call(
        self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes]:
        try:
            access, secret = map(self._secrets.resolve, (self._options.access_key_ref, self._options.secret_key_ref))
        except SecretUnavailableError as error:
            raise StoreUnavailableError(f"{self.name}: {error}") from None
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock_seconds()))
        credentials = Credentials(access or "", secret or "")
        given = headers | {"host": self._host}
        signed = signed_headers(method, path, query, given, body, credentials, self._options.region, stamp)
        tail = f"?{quoted_query(query)}" if query else ""
        url = URL(f"{self._options.endpoint}{quoted_path(path)}{tail}", encoded=True)
        try:
            async with self._session.request(method, url, headers=signed, data=body, allow_redirects=False) as answer:
                return answer.status, await _bounded(answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise StoreUnavailableError(f"{self.name}: no answer: {type(error).__name__}") from None


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for part in answer.content.iter_any():
        data += part
        if len(data) > ANCHOR_ANSWER_BYTES_MAX:
            raise StoreUnavailableError(f"the answer has more than {ANCHOR_ANSWER_BYTES_MAX} bytes")
    return bytes(data)


def _versions(page: ET.Element, prefix: str) -> Iterator[_Version]:
    """The versions of a page that are checkpoints; what else lies in the bucket is passed over."""
    for each in page.iter("Version"):
        key, modified = each.findtext("Key") or "", each.findtext("LastModified") or ""
        if key.startswith(prefix) and _SIZE.fullmatch(key.removeprefix(prefix)):
            yield _Version(key, each.findtext("VersionId") or "", _micros(modified))


def _micros(text: str) -> int:
    try:
        return int(datetime.fromisoformat(text).timestamp()) * 1_000_000
    except ValueError:
        return 0


def _refused(what: str, status: int, answer: bytes) -> StoreUnavailableError:
    code = re.search(rb"<Code>([A-Za-z0-9]{1,64})</Code>", answer)
    return StoreUnavailableError(f"{what} is answered {status}" + (f" {code[1].decode('ascii')}" if code else ""))
