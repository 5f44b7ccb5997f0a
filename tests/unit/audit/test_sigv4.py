"""AWS Signature Version 4 against the examples that AWS publishes for S3."""

from __future__ import annotations

import pytest

from api.anchors.sigv4 import Credentials, quoted_path, quoted_query, signed_headers

CREDENTIALS = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
HOST = "examplebucket.s3.amazonaws.com"
STAMP, REGION = "20130524T000000Z", "us-east-1"


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "body", "names", "signature"),
    [
        pytest.param(
            "GET", "/test.txt", {}, {"Range": "bytes=0-9"}, b"", "host;range;x-amz-content-sha256;x-amz-date",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41", id="get",
        ),
        pytest.param(
            "PUT", "/test$file.text", {},
            {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            b"Welcome to Amazon S3.", "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd", id="put",
        ),
        pytest.param(
            "GET", "/", {"lifecycle": ""}, {}, b"", "host;x-amz-content-sha256;x-amz-date",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543", id="lifecycle",
        ),
        pytest.param(
            "GET", "/", {"prefix": "J", "max-keys": "2"}, {}, b"", "host;x-amz-content-sha256;x-amz-date",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7", id="list",
        ),
    ],
)  # fmt: skip
def test_published_signatures(
    method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes, names: str, signature: str
) -> None:
    """Scope, signed headers and signature are those of the documentation."""
    signed = signed_headers(method, path, query, {"host": HOST} | headers, body, CREDENTIALS, REGION, STAMP)

    scope = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"
    expected = f"AWS4-HMAC-SHA256 Credential={scope},SignedHeaders={names},Signature={signature}"
    assert expected == signed["authorization"]
    assert (STAMP, HOST) == (signed["x-amz-date"], signed["host"])


def test_what_is_not_plain_is_quoted() -> None:
    """Once in a path, whose slashes stay, and in a query, whose slashes do not; sorted."""
    assert "/audit%20log/a%2Bb~c" == quoted_path("/audit log/a+b~c")
    assert "a=%2F%2B%20~&versions=" == quoted_query({"versions": "", "a": "/+ ~"})


def test_credentials_are_never_shown() -> None:
    """Not in a log line by mistake."""
    assert "EXAMPLE" not in repr(CREDENTIALS) + str(CREDENTIALS)
