"""Mail over TLS and after a log-in, against a server with a certificate of its own."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from api.alerts.mail import MailOutlet
from api.alerts.outlets import Later, Never, Receipt, Sent
from infra.embedded.ports import free_ports
from processors.control import Channel
from tests.support.events import NOW_MICROS, TENANT, alert

USER, PASSWORD = "alerts@example.com", "a:b/c d"
#: As a URL has them.
LOG_IN = "alerts%40example.com:a%3Ab%2Fc%20d@"
QUERY = "?from=quaestor@example.com&to=ops@example.com"
CHANNEL = Channel(channel_id="ops", tenant_id=TENANT, kind="email", target_ref="env:MAIL")


class Mail(NamedTuple):
    """What a server took, and how."""

    recipients: list[str]
    #: Of the connection; None in the clear.
    tls_version: str | None
    is_logged_in: bool


class Server:
    """A mail server on loopback that asks for a log-in over TLS, and keeps what it took."""

    def __init__(self, directory: Path) -> None:
        """With a certificate that nobody but itself signed."""
        self.certificate = directory / "certificate.pem"
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.certificate, _make_certificate(self.certificate))
        self.mails: list[Mail] = []

    @contextmanager
    def running(self, *, implicit_tls: bool) -> Iterator[str]:
        """Its URL for somebody who logs in as it knows them."""
        (port,) = free_ports(1)
        # TLS from the first byte is none that aiosmtpd would know of: there it can't insist.
        insists = not implicit_tls
        asked = {"auth_required": insists, "auth_require_tls": insists, "require_starttls": insists}
        tls = {"ssl_context" if implicit_tls else "tls_context": self._context}
        controller = Controller(self, hostname="127.0.0.1", port=port, authenticator=self._authenticate, **tls, **asked)
        controller.start()
        try:
            yield f"smtp{'s' if implicit_tls else ''}://{LOG_IN}127.0.0.1:{port}/{QUERY}"
        finally:
            controller.stop()

    def _authenticate(self, _server: object, _session: object, _envelope: object, _kind: str, given: Any) -> AuthResult:
        known = LoginPassword(USER.encode(), PASSWORD.encode())
        return AuthResult(success=given == known, handled=False)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - its name for it
        """As aiosmtpd calls it."""
        tls = server.transport.get_extra_info("ssl_object")
        self.mails.append(Mail(envelope.rcpt_tos, tls and tls.version(), session.authenticated))
        return "250 taken"


def _make_certificate(path: Path) -> Path:
    """Write a certificate of this machine, signed by itself; answers where its key is."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail of a test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path = path.with_suffix(".key")
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key_path.write_bytes(key.private_bytes(*form))
    return key_path


@pytest.fixture
def server(tmp_path: Path, socket_enabled: None) -> Server:
    """A server that nobody trusts yet."""
    return Server(tmp_path)


@pytest.fixture
def trusted(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server whose certificate this process trusts, as operators say that: SSL_CERT_FILE."""
    monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
    return server


async def send(target: str) -> Receipt:
    """Send one alert."""
    outlet = MailOutlet()
    try:
        told = alert("01900000-0000-7000-8000-000000000001")
        return await outlet.send(CHANNEL, told, target, None, NOW_MICROS // 1_000_000)
    finally:
        await outlet.close()


@pytest.mark.parametrize("implicit_tls", [False, True], ids=["starttls", "smtps"])
async def test_a_mail_goes_over_tls_after_log_in(trusted: Server, *, implicit_tls: bool) -> None:
    """User and password are those of the URL, decoded."""
    with trusted.running(implicit_tls=implicit_tls) as target:
        receipt = await send(target)
    assert Sent() == receipt
    (mail,) = trusted.mails
    assert (["ops@example.com"], True) == (mail.recipients, mail.is_logged_in)
    assert mail.tls_version in {"TLSv1.2", "TLSv1.3"}


@pytest.mark.parametrize("implicit_tls", [False, True], ids=["starttls", "smtps"])
async def test_a_certificate_that_nobody_vouches_for_is_waited_out(server: Server, *, implicit_tls: bool) -> None:
    """An operator may put it right; until then nothing is told to whoever that is, the password least."""
    with server.running(implicit_tls=implicit_tls) as target:
        receipt = await send(target)
    assert Later("no answer: SSLCertVerificationError") == receipt
    assert [] == server.mails


@pytest.mark.parametrize("implicit_tls", [False, True], ids=["starttls", "smtps"])
async def test_a_wrong_password_is_no_reason_to_try_again(trusted: Server, *, implicit_tls: bool) -> None:
    """The server says that for good, and the reason has no word of it."""
    with trusted.running(implicit_tls=implicit_tls) as target:
        receipt = await send(target.replace("a%3Ab", "other"))
    assert Never("the mail server refused it (535)") == receipt
    assert [] == trusted.mails
