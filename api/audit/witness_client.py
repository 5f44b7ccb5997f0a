"""HttpWitnesses: carries checkpoints to witnesses over HTTP (c2sp.org/tlog-witness)."""

from __future__ import annotations

import aiohttp

from processors.audit.witness import Answer
from schemas.limits import AUDIT_WITNESSES_MAX, CONNECT_TIMEOUT_SECONDS, WITNESS_ANSWER_BYTES_MAX
from sinks.audit.witnesses import WitnessCaller

USER_AGENT = "quaestor"


class HttpWitnesses(WitnessCaller):
    """A WitnessCaller over aiohttp. Connections are kept; redirects are not followed."""

    def __init__(self) -> None:
        """Connects nothing yet."""
        self._session: aiohttp.ClientSession | None = None

    async def add_checkpoint(self, url: str, body: bytes) -> Answer | str:
        """As the seam says."""
        target = url.rstrip("/") + "/add-checkpoint"
        try:
            async with self._open().post(target, data=body, allow_redirects=False) as said:
                found = await said.content.read(WITNESS_ANSWER_BYTES_MAX + 1)
                while len(found) <= WITNESS_ANSWER_BYTES_MAX and (more := await said.content.readany()):
                    found += more
                if len(found) > WITNESS_ANSWER_BYTES_MAX:
                    return f"HTTP {said.status} with more than {WITNESS_ANSWER_BYTES_MAX} bytes"
                return Answer(said.status, found.decode("utf-8"), said.headers.get("content-type", ""))
        except UnicodeDecodeError:
            return "its answer is not text"
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return f"no answer: {type(error).__name__}"

    async def close(self) -> None:
        """As the seam says."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        """The session, made inside the loop that uses it."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=AUDIT_WITNESSES_MAX),
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": USER_AGENT, "Content-Type": "text/plain; charset=utf-8"},
                trust_env=False,
            )
        return self._session
