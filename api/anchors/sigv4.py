"""AWS Signature Version 4 of one request, as S3 and what is compatible with it want it. Pure."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import quote

ALGORITHM = "AWS4-HMAC-SHA256"


class Credentials(NamedTuple):
    """Who signs."""

    access_key: str
    secret_key: str

    def __repr__(self) -> str:
        """Name neither."""
        return "Credentials()"


def quoted_path(path: str) -> str:
    """A path as S3 wants it in the request and signed: everything but letters, digits and -._~/ in per cent."""
    return quote(path, safe="/-._~")


def quoted_query(query: Mapping[str, str]) -> str:
    """A query in the order and form in which it is sent and signed."""
    return "&".join(f"{quote(key, safe='-._~')}={quote(query[key], safe='-._~')}" for key in sorted(query))


def signed_headers(
    method: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    body: bytes,
    credentials: Credentials,
    region: str,
    stamp: str,
) -> dict[str, str]:
    """The headers with x-amz-date, x-amz-content-sha256 and authorization.

    `headers` have `host` and every other header to be signed; `path` and the query's parts are not quoted yet; `stamp`
    is the time as 20130524T000000Z.
    """
    digest = sha256(body).hexdigest()
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    lower |= {"x-amz-date": stamp, "x-amz-content-sha256": digest}
    names = ";".join(sorted(lower))
    shown = "".join(f"{name}:{lower[name]}\n" for name in sorted(lower))
    request = "\n".join((method, quoted_path(path), quoted_query(query), shown, names, digest))
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    text = "\n".join((ALGORITHM, stamp, scope, sha256(request.encode("utf-8")).hexdigest()))
    signature = hmac.new(_key(credentials.secret_key, stamp[:8], region), text.encode("utf-8"), sha256).hexdigest()
    credential = f"{ALGORITHM} Credential={credentials.access_key}/{scope}"
    return lower | {"authorization": f"{credential},SignedHeaders={names},Signature={signature}"}


def _key(secret_key: str, day: str, region: str) -> bytes:
    key = f"AWS4{secret_key}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode("utf-8"), sha256).digest()
    return key
