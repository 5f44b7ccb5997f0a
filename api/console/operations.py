"""Operations of the API: each says path, parameters, body and answer once; routes and the OpenAPI document follow."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request

from api.console.parts import Parts
from api.console.problems import NO_KEY, NOT_JSON, TOO_LARGE, TOO_SLOW, Problem, invalid, misshapen, refused, reused
from api.control.session import ControlRefusedError, Decide, Write, WriteReusedError
from schemas.ids import derived_id
from schemas.limits import CONSOLE_BODY_BYTES_MAX, CONSOLE_REQUEST_SECONDS, IDEMPOTENCY_KEY_CHARACTERS_MAX

OPENAPI_VERSION = "3.1.0"
COMPONENTS = "#/components/schemas/{name}"
JSON = "application/json"
BEARER = "bearer "
IDEMPOTENCY_KEY = "Idempotency-Key"
ACTOR_HEX_DIGITS = 8
SECRET_BYTES = 18
_KEY = re.compile(rf"[!-~]{{1,{IDEMPOTENCY_KEY_CHARACTERS_MAX}}}")


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """Nothing to say."""


class Caller(NamedTuple):
    """Who changes something, and under which key."""

    token: str
    key: str

    @property
    def actor(self) -> str:
        """As events name them: by their token, of which nothing can be told from it."""
        return f"console/{hashlib.sha256(self.token.encode()).hexdigest()[:ACTOR_HEX_DIGITS]}"

    def write(self, decides: Sequence[Decide], reason: str | None) -> Write:
        """These changes as one write, the same whenever it is tried again."""
        return Write(derived_id("console", self.key, "write", ""), self.actor, decides, reason)

    def secret(self, purpose: str) -> str:
        """A secret that only somebody with this token can make again, under the same key; URL-safe text."""
        digest = hmac.digest(self.token.encode(), f"{purpose}\n{self.key}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest[:SECRET_BYTES]).decode("ascii")


@dataclass(frozen=True, kw_only=True)
class Operation(ABC):
    """What can be asked at one address by one method.

    Every field of `asked` that stands in the path is a path parameter, others are query's. What a handler's seams
    raise comes through: the application tells that as a problem.
    """

    name: str
    path: str
    #: One sentence.
    summary: str
    asked: type[msgspec.Struct]
    answered: type[msgspec.Struct]

    @property
    @abstractmethod
    def method(self) -> str:
        """Its HTTP method."""

    @property
    def body(self) -> type[msgspec.Struct] | None:
        """What stands in the request's body."""
        return None

    async def run(self, parts: Parts, request: Request) -> msgspec.Struct | Problem:
        """Read what is asked and answer, within the time there is."""
        try:
            async with asyncio.timeout(CONSOLE_REQUEST_SECONDS):
                return await self._answer(parts, request)
        except TimeoutError:
            return TOO_SLOW

    @abstractmethod
    async def _answer(self, parts: Parts, request: Request) -> msgspec.Struct | Problem: ...

    def _read(self, request: Request) -> msgspec.Struct | Problem:
        given = request.query_params.multi_items()
        names = [name for name, _ in given]
        if len(set(names)) < len(names):
            return invalid("A parameter is given twice.")
        try:
            return msgspec.convert({**dict(given), **request.path_params}, self.asked, strict=False)
        except msgspec.ValidationError as error:
            return misshapen(error)


@dataclass(frozen=True, kw_only=True)
class Reading(Operation):
    """An address that is read."""

    handle: Callable[[Parts, Any], Awaitable[msgspec.Struct | Problem]]

    @property
    def method(self) -> str:
        """HEAD is answered as well."""
        return "GET"

    async def _answer(self, parts: Parts, request: Request) -> msgspec.Struct | Problem:
        asked = self._read(request)
        return asked if isinstance(asked, Problem) else await self.handle(parts, asked)


@dataclass(frozen=True, kw_only=True)
class Changing(Operation):
    """A change. `handle` is given the caller, the parameters and the body; it may raise what a session raises."""

    handle: Callable[[Parts, Caller, Any, Any], Awaitable[msgspec.Struct | Problem]]
    #: None: there is nothing to say, and the thing is removed.
    wanted: type[msgspec.Struct] | None = None

    @property
    def method(self) -> str:
        """What has no body removes."""
        return "DELETE" if self.wanted is None else "POST"

    @property
    def body(self) -> type[msgspec.Struct] | None:
        """As the base says."""
        return self.wanted

    async def _answer(self, parts: Parts, request: Request) -> msgspec.Struct | Problem:
        key = request.headers.get(IDEMPOTENCY_KEY, "")
        if not _KEY.fullmatch(key):
            return NO_KEY
        asked = self._read(request)
        if isinstance(asked, Problem):
            return asked
        body = await self._body(request)
        if isinstance(body, Problem):
            return body
        try:
            return await self.handle(parts, Caller(token_of(request), key), asked, body)
        except ControlRefusedError as error:
            return refused(error.refusal)
        except WriteReusedError as error:
            return reused(error.field)

    async def _body(self, request: Request) -> Any:
        if self.wanted is None:
            return None
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            return NOT_JSON
        read = bytearray()
        async for chunk in request.stream():
            read += chunk
            if len(read) > CONSOLE_BODY_BYTES_MAX:
                return TOO_LARGE
        try:
            return msgspec.json.decode(read, type=self.wanted)
        except msgspec.DecodeError as error:
            return misshapen(error)
        except UnicodeDecodeError:
            return invalid("The body is not UTF-8.")


def token_of(request: Request) -> str:
    """The bearer token of a request; empty when it has none."""
    header = request.headers.get("authorization", "")
    return header[len(BEARER) :].strip() if header[: len(BEARER)].lower() == BEARER else ""


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The OpenAPI document of these operations."""
    bodies = [operation.body or Nothing for operation in operations]
    references, components = msgspec.json.schema_components(
        [*(operation.answered for operation in operations), *bodies], ref_template=COMPONENTS
    )
    paths: dict[str, dict[str, Any]] = {}
    for operation, answer, body in zip(operations, references, references[len(operations) :], strict=False):
        described = _described(operation, answer, None if operation.body is None else body)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": OPENAPI_VERSION,
        "info": {"title": "Quaestor console", "version": "1"},
        "security": [{"admin": []}],
        "paths": paths,
        "components": {
            "schemas": components | {"Problem": PROBLEM},
            "securitySchemes": {"admin": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(operation: Operation, answer: dict[str, Any], body: dict[str, Any] | None) -> dict[str, Any]:
    problem = {"$ref": COMPONENTS.format(name="Problem")}
    described = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [*_parameters(operation), *([KEY_PARAMETER] if operation.method != "GET" else [])],
        "responses": {
            "200": {"description": "As asked.", "content": {JSON: {"schema": answer}}},
            "default": {"description": "A problem.", "content": {"application/problem+json": {"schema": problem}}},
        },
    }
    return described | (
        {} if body is None else {"requestBody": {"required": True, "content": {JSON: {"schema": body}}}}
    )


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    (schema,) = msgspec.json.schema(operation.asked)["$defs"].values()
    return [
        {
            "name": name,
            "in": "path" if f"{{{name}}}" in operation.path else "query",
            "required": name in schema["required"],
            "description": kind.pop("description", ""),
            "schema": kind,
        }
        for name, kind in schema["properties"].items()
    ]


KEY_PARAMETER: dict[str, Any] = {
    "name": IDEMPOTENCY_KEY,
    "in": "header",
    "required": True,
    "description": "The same change sent again with the same key is made once and answered as before.",
    "schema": {"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_CHARACTERS_MAX},
}
PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail", "correlation_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "For programs; never changes."},
        "detail": {"type": "string", "description": "For people."},
        "correlation_id": {"type": "string", "description": "Under which the console's log has it."},
        "field": {"type": "string", "description": "Of the request, which is at fault; absent when it is not one."},
    },
}
