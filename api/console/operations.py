"""Operations of the API: each says path, parameters and answer once; routes and the OpenAPI document are made of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request

from api.console.parts import Parts
from api.console.problems import TOO_SLOW, Problem, invalid
from schemas.limits import CONSOLE_REQUEST_SECONDS

OPENAPI_VERSION = "3.1.0"
COMPONENTS = "#/components/schemas/{name}"
JSON = "application/json"


@dataclass(frozen=True)
class Operation:
    """One address that is read. Every field of `asked` that stands in the path is a path parameter, others are query's.

    `handle` may raise what its seams raise: the application tells that as a problem.
    """

    name: str
    path: str
    #: One sentence.
    summary: str
    asked: type[msgspec.Struct]
    answered: type[msgspec.Struct]
    handle: Callable[[Parts, Any], Awaitable[msgspec.Struct | Problem]]

    async def run(self, parts: Parts, request: Request) -> msgspec.Struct | Problem:
        """Read the parameters and answer, within the time there is."""
        asked = self._read(request)
        if isinstance(asked, Problem):
            return asked
        try:
            async with asyncio.timeout(CONSOLE_REQUEST_SECONDS):
                return await self.handle(parts, asked)
        except TimeoutError:
            return TOO_SLOW

    def _read(self, request: Request) -> msgspec.Struct | Problem:
        given = request.query_params.multi_items()
        names = [name for name, _ in given]
        if len(set(names)) < len(names):
            return invalid("A parameter is given twice.")
        try:
            return msgspec.convert({**dict(given), **request.path_params}, self.asked, strict=False)
        except msgspec.ValidationError as error:
            return invalid(str(error))


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The OpenAPI document of these operations."""
    asked = [msgspec.json.schema(operation.asked) for operation in operations]
    references, components = msgspec.json.schema_components(
        [operation.answered for operation in operations], ref_template=COMPONENTS
    )
    return {
        "openapi": OPENAPI_VERSION,
        "info": {"title": "Quaestor console", "version": "1"},
        "security": [{"admin": []}],
        "paths": {
            operation.path: {"get": _described(operation, parameters, answer)}
            for operation, parameters, answer in zip(operations, asked, references, strict=True)
        },
        "components": {
            "schemas": components | {"Problem": PROBLEM},
            "securitySchemes": {"admin": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(operation: Operation, asked: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    (schema,) = asked["$defs"].values()
    problem = {"$ref": COMPONENTS.format(name="Problem")}
    return {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [
            {
                "name": name,
                "in": "path" if f"{{{name}}}" in operation.path else "query",
                "required": name in schema["required"],
                "description": kind.pop("description", ""),
                "schema": kind,
            }
            for name, kind in schema["properties"].items()
        ],
        "responses": {
            "200": {"description": "As asked.", "content": {JSON: {"schema": answer}}},
            "default": {"description": "A problem.", "content": {"application/problem+json": {"schema": problem}}},
        },
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
    },
}
