"""Questions over a socket that only a working server answers; each takes a second at most and never raises."""

from __future__ import annotations

import http.client
import json
import socket
import struct
from typing import Any

from infra.embedded.ports import LOOPBACK

PROBE_SECONDS = 1.0
API_VERSIONS_KEY = 18
CORRELATION = 7
ANSWER_BYTES_MAX = 1024 * 1024


def http_answers(port: int, path: str) -> bool:
    """Whether a GET is answered with 200."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def http_json(port: int, path: str) -> dict[str, Any]:
    """The JSON object that a GET is answered with; empty when there is none."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", path)
        answer = json.loads(connection.getresponse().read(ANSWER_BYTES_MAX))
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    else:
        return answer if isinstance(answer, dict) else {}
    finally:
        connection.close()


def valkey_answers(port: int) -> bool:
    """Whether PING is answered with PONG (not with LOADING)."""
    return exchange(port, b"PING\r\n", 7) == b"+PONG\r\n"


def kafka_answers(port: int) -> bool:
    """Whether the broker answers an ApiVersions request without an error.

    A KRaft broker opens its listeners only when it is registered, unfenced and caught up.
    """
    request = struct.pack(">hhih", API_VERSIONS_KEY, 0, CORRELATION, -1)
    answer = exchange(port, struct.pack(">i", len(request)) + request, 10)
    return len(answer) == 10 and struct.unpack(">ih", answer[4:]) == (CORRELATION, 0)  # noqa: PLR2004 - its size


def exchange(port: int, request: bytes, answer_bytes: int) -> bytes:
    """Send bytes and read as many as asked for; fewer when the server has no more or does not answer."""
    answer = b""
    try:
        with socket.create_connection((LOOPBACK, port), PROBE_SECONDS) as connection:
            connection.settimeout(PROBE_SECONDS)
            connection.sendall(request)
            while len(answer) < answer_bytes and (part := connection.recv(answer_bytes - len(answer))):
                answer += part
    except OSError:
        return b""
    return answer
