"""HttpUpstream: OpenAI-compatible servers over HTTP, on one bounded pool of connections per process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from api.providers.errors import (
    UpstreamGarbageError,
    UpstreamTimeoutError,
    UpstreamTruncatedError,
    UpstreamUnreachableError,
)
from api.providers.upstream import Call
from schemas import limits

#: Shorter than the keep-alive of common servers (five seconds), so that a pooled connection is not closed under us.
KEEPALIVE_SECONDS = 4.0
NAMES_CACHED_SECONDS = 30
HEADERS_CACHED_MAX = 256
USER_AGENT = "quaestor"


class HttpUpstream:
    """An Upstream over aiohttp. Redirects are not followed: a credential goes only where it was meant to."""

    def __init__(self, connections_max: int = limits.CONCURRENT_REQUESTS_MAX) -> None:
        """Make it inside the loop that will use it; connects nothing yet."""
        connector = aiohttp.TCPConnector(
            limit=connections_max, keepalive_timeout=KEEPALIVE_SECONDS, ttl_dns_cache=NAMES_CACHED_SECONDS
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            trust_env=False,
            auto_decompress=False,
        )
        self._headers: dict[tuple[str | None, bool], CIMultiDict[str]] = {}
        self._urls: dict[str, URL] = {}
        self._timeouts: dict[float, aiohttp.ClientTimeout] = {}

    async def send(self, call: Call) -> HttpAnswer:
        """As the seam says."""
        try:
            response = await self._session.post(
                self._url(call.url),
                data=call.body,
                headers=self._headers_of(call.secret, call.stream),
                timeout=self._timeout(call.timeout_seconds),
                allow_redirects=False,
            )
        except TimeoutError as error:
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                raise UpstreamUnreachableError("no connection in time") from error
            raise UpstreamTimeoutError from error
        except (aiohttp.ClientConnectionError, OSError) as error:
            raise UpstreamUnreachableError(f"no answer: {type(error).__name__}") from error
        except aiohttp.ClientError as error:
            raise UpstreamGarbageError(f"the answer is no HTTP: {type(error).__name__}") from error
        except ValueError as error:  # aiohttp refuses a URL or header that can't be sent
            raise UpstreamUnreachableError(f"the call can't be sent: {type(error).__name__}") from error
        return HttpAnswer(response)

    async def close(self) -> None:
        """As the seam says."""
        await self._session.close()

    def _url(self, text: str) -> URL:
        url = self._urls.get(text)
        if url is None:
            _make_room(self._urls)
            url = self._urls[text] = URL(text)
        return url

    def _headers_of(self, secret: str | None, stream: bool) -> CIMultiDict[str]:
        headers = self._headers.get((secret, stream))
        if headers is None:
            _make_room(self._headers)
            headers = CIMultiDict(
                {
                    "Content-Type": "application/json",
                    "Accept": "text/event-stream" if stream else "application/json",
                    "Accept-Encoding": "identity",
                    "User-Agent": USER_AGENT,
                }
            )
            if secret is not None:
                headers["Authorization"] = f"Bearer {secret}"
            self._headers[secret, stream] = headers
        return headers

    def _timeout(self, seconds: float) -> aiohttp.ClientTimeout:
        seconds = round(seconds, 1)
        timeout = self._timeouts.get(seconds)
        if timeout is None:
            _make_room(self._timeouts)
            connect_seconds = min(seconds, limits.CONNECT_TIMEOUT_SECONDS)
            timeout = aiohttp.ClientTimeout(total=max(seconds, 0.1), connect=connect_seconds)
            self._timeouts[seconds] = timeout
        return timeout


def _make_room(cache: dict[Any, Any]) -> None:
    if len(cache) >= HEADERS_CACHED_MAX:
        cache.clear()


class HttpAnswer:
    """An Answer over aiohttp."""

    __slots__ = ("_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        """Wrap a response whose headers have come."""
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def body(self, bytes_max: int = limits.RESPONSE_BYTES_MAX) -> bytes:
        """As the seam says."""
        response = self._response
        if (response.content_length or 0) > bytes_max:
            self.abort()
            raise UpstreamGarbageError(f"the answer is over {bytes_max} bytes")
        content = response.content
        data = await self.some()
        if content.at_eof():
            return data
        parts, size = [data], len(data)
        while data := await self.some():
            parts.append(data)
            size += len(data)
            if size > bytes_max:
                self.abort()
                raise UpstreamGarbageError(f"the answer is over {bytes_max} bytes")
        return b"".join(parts)

    async def some(self) -> bytes:
        """As the seam says."""
        try:
            return await self._response.content.readany()
        except TimeoutError as error:
            self.abort()
            raise UpstreamTimeoutError from error
        except (aiohttp.ClientError, OSError) as error:
            self.abort()
            raise UpstreamTruncatedError(f"the answer broke off: {type(error).__name__}") from error
        except asyncio.CancelledError:
            self.abort()
            raise

    def abort(self) -> None:
        """As the seam says."""
        self._response.close()
