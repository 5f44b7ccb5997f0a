"""Anchors to try things on: checkpoints, a bucket with Object Lock on loopback, a time stamp authority."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from api.anchors.sigv4 import Credentials, signed_headers
from processors.audit.checkpoint import Checkpoint, sign_checkpoint
from processors.audit.note import Signer
from tests.support.audit import ORIGIN

SIGNER = Signer(ORIGIN, bytes(range(32)))
ACCESS_KEY, SECRET_KEY = "AKIDEXAMPLE", "secret-of-the-bucket"
BUCKET, REGION = "worm", "eu-test-1"


def note_of(size: int, root: int = 7) -> str:
    """A signed checkpoint."""
    return sign_checkpoint(Checkpoint(ORIGIN, size, bytes([root]) * 32), SIGNER)


@asynccontextmanager
async def serving(handler: web.RequestHandler | object, path: str = "/{path:.*}") -> AsyncIterator[str]:
    """A web server on loopback for all paths, or those of this pattern; its URL."""
    app = web.Application()
    app.router.add_route("*", path, handler)  # type: ignore[arg-type]
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class StoredVersion(NamedTuple):
    """An object's version."""

    key: str
    version_id: str
    body: bytes
    retain_until: str


class Bucket:
    """As much of S3 as an anchor asks: signed requests, locked versions, listings in pages."""

    def __init__(self, page_keys: int = 1_000) -> None:
        """Empty; its pages have at most so many keys."""
        self.versions: list[StoredVersion] = []
        self.page_keys = page_keys
        self.away = False
        #: Why requests were refused.
        self.refusals: list[str] = []
        self.hanging = asyncio.Event()
        self.hangs = False

    async def handle(self, request: web.Request) -> web.Response:
        """One request."""
        if self.hangs:
            self.hanging.set()
            await asyncio.Event().wait()
        if self.away:
            return web.Response(status=503, text="<Error><Code>SlowDown</Code></Error>")
        body = await request.read()
        wrong = self._wrong_signature(request, body)
        if wrong:
            self.refusals.append(wrong)
            return web.Response(status=403, text="<Error><Code>SignatureDoesNotMatch</Code></Error>")
        if request.method == "PUT":
            return self._put(request, body)
        return self._list(request) if "versions" in request.query else self._get(request)

    def _wrong_signature(self, request: web.Request, body: bytes) -> str | None:
        """Recomputed from what came over the wire."""
        given = request.headers.get("authorization", "")
        match = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=([^/]+)/.*,SignedHeaders=([^,]+),Signature=[0-9a-f]{64}", given
        )
        if match is None or match[1] != ACCESS_KEY:
            return "no signature"
        skipped = {"x-amz-date", "x-amz-content-sha256"}
        headers = {name: request.headers[name] for name in match[2].split(";") if name not in skipped}
        unsigned = [
            name for name in request.headers if name.lower().startswith("x-amz-") and name.lower() not in match[2]
        ]
        if unsigned or "host" not in headers:
            return f"not signed: {unsigned or 'host'}"
        raw_path, _, raw_query = request.raw_path.partition("?")
        query = dict(tuple(map(unquote, part.partition("=")[::2])) for part in raw_query.split("&") if part)
        path, stamp = unquote(raw_path), request.headers["x-amz-date"]
        credentials = Credentials(ACCESS_KEY, SECRET_KEY)
        expected = signed_headers(request.method, path, query, headers, body, credentials, REGION, stamp)
        return None if expected["authorization"] == given else "another signature"

    def _put(self, request: web.Request, body: bytes) -> web.Response:
        headers, key = request.headers, request.path.removeprefix(f"/{BUCKET}/")
        if headers.get("x-amz-object-lock-mode") != "COMPLIANCE" or "content-md5" not in headers:
            self.refusals.append("no lock")
            return web.Response(status=400, text="<Error><Code>InvalidRequest</Code></Error>")
        if headers.get("if-none-match") == "*" and any(each.key == key for each in self.versions):
            return web.Response(status=412, text="<Error><Code>PreconditionFailed</Code></Error>")
        self.put_over(key, body, headers["x-amz-object-lock-retain-until-date"])
        return web.Response()

    def put_over(self, key: str, body: bytes, retain_until: str = "2099-01-01T00:00:00Z") -> None:
        """Put a version, as somebody may who has the bucket's keys."""
        self.versions.append(StoredVersion(key, f"version {len(self.versions)}/+", body, retain_until))

    def _get(self, request: web.Request) -> web.Response:
        key, wanted = request.path.removeprefix(f"/{BUCKET}/"), request.query.get("versionId")
        found = [each for each in self.versions if each.key == key and wanted in {None, each.version_id}]
        return web.Response(body=found[-1].body) if found else web.Response(status=404)

    def _list(self, request: web.Request) -> web.Response:
        query = request.query
        after = (query.get("key-marker", ""), query.get("version-id-marker", "\x7f"))
        found = sorted(
            (each for each in self.versions if each.key.startswith(query["prefix"])), key=lambda each: each[:2]
        )
        rest = [each for each in found if each[:2] > after]
        shown = rest[: self.page_keys]
        more = "true" if len(rest) > len(shown) else "false"
        rows = "".join(
            f"<Version><Key>{each.key}</Key><VersionId>{each.version_id}</VersionId>"
            "<LastModified>2026-11-21T08:00:00.000Z</LastModified></Version>"
            for each in shown
        )
        last = shown[-1] if shown else StoredVersion("", "", b"", "")
        markers = (
            f"<NextKeyMarker>{last.key}</NextKeyMarker><NextVersionIdMarker>{last.version_id}</NextVersionIdMarker>"
        )
        text = (
            f'<ListVersionsResult xmlns="urn:s3"><IsTruncated>{more}</IsTruncated>{markers}{rows}</ListVersionsResult>'
        )
        return web.Response(text=text, content_type="application/xml")


class Authority:
    """A time stamp authority with keys of its own, answering with the openssl command."""

    def __init__(self, folder: Path) -> None:
        """Make its certificates."""
        folder.mkdir()
        self.folder = folder
        self.away = False
        #: Answer with a stamp of something else from now on.
        self.stale: bytes | None = None
        self.roots = folder / "root.pem"
        root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        root = _certificate("root", root_key.public_key(), "root", root_key, issuer=True)
        leaf = _certificate("authority", key.public_key(), "root", root_key, issuer=False)
        self.roots.write_bytes(root.public_bytes(serialization.Encoding.PEM))
        (folder / "tsa.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
        plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        (folder / "tsa.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))
        (folder / "serial").write_text("01")
        (folder / "tsa.cnf").write_text(
            "[tsa]\ndefault_tsa=here\n[here]\n"
            f"serial={folder}/serial\nsigner_cert={folder}/tsa.pem\nsigner_key={folder}/tsa.key\n"
            "signer_digest=sha256\ndefault_policy=1.2.3.4.1\ndigests=sha256\ness_cert_id_alg=sha256\n"
        )

    async def handle(self, request: web.Request) -> web.Response:
        """One query."""
        if self.away:
            return web.Response(status=503)
        assert request.content_type == "application/timestamp-query"
        query = await request.read()
        answer = self.stale or await asyncio.to_thread(self._reply, query)
        return web.Response(body=answer, content_type="application/timestamp-reply")

    def _reply(self, query: bytes) -> bytes:
        (self.folder / "query.tsq").write_bytes(query)
        self.openssl("-reply", "-config", "tsa.cnf", "-queryfile", "query.tsq", "-out", "reply.tsr")
        return (self.folder / "reply.tsr").read_bytes()

    def openssl(self, *arguments: str) -> str:
        """`openssl ts` with these; what it prints. Raises CalledProcessError when it says no."""
        command = ["openssl", "ts", *arguments]
        return subprocess.run(command, cwd=self.folder, check=True, capture_output=True, text=True).stdout


def _certificate(
    name: str, key: ec.EllipticCurvePublicKey, issuer_name: str, issuer_key: ec.EllipticCurvePrivateKey, *, issuer: bool
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer_name)]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if issuer:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    else:
        stamping = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
        builder = builder.add_extension(stamping, critical=True)
        builder = builder.add_extension(
            x509.KeyUsage(True, False, False, False, False, False, False, False, False), critical=True
        )
    return builder.sign(issuer_key, hashes.SHA256())
