"""What every outlet must do, asked of the one in memory and of HTTP and SMTP against servers on this machine."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from hashlib import sha256
from typing import Any, Protocol

import pytest
from aiohttp import web
from aiosmtpd.controller import Controller

from api.alerts.http import HttpOutlet
from api.alerts.mail import MailOutlet
from api.alerts.outlets import Later, MemoryOutlet, Never, Outlet, Receipt, Sent
from processors.control import Channel
from schemas.events import Severity
from tests.support.events import NOW_MICROS, TENANT, alert

ALERT = alert(
    "01900000-0000-7000-8000-000000000001",
    severity=Severity.CRITICAL,
    title="acme: 95% of the budget is used",
    detail="95.00 of 100.00 EUR are charged.",
    window_end=NOW_MICROS,
)
NOW_SECONDS = 1_700_000_000
SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()


class World(Protocol):
    """An outlet and a receiver for it."""

    outlet: Outlet
    channel: Channel
    #: The receiver's address, and one where nobody listens.
    target: str
    nowhere: str

    def busy(self) -> None:
        """The receiver says: later, from now on."""

    def closed(self) -> None:
        """The receiver says: never, from now on."""

    def ids(self) -> list[str]:
        """Ids of the alerts that it took."""


class MemoryWorld:
    """The outlet in memory is its own receiver."""

    def __init__(self) -> None:
        """It takes everything."""
        self.memory = MemoryOutlet()
        self.outlet: Outlet = self.memory
        self.channel = channel("slack")
        self.target = self.nowhere = "anything"

    def busy(self) -> None:
        """As the protocol says."""
        self.memory.answers = [Later("busy")]

    def closed(self) -> None:
        """As the protocol says."""
        self.memory.answers = [Never("closed")]

    def ids(self) -> list[str]:
        """As the protocol says."""
        return [told.event_id for _, _, told in self.memory.taken]


class HttpWorld:
    """A web server on loopback."""

    def __init__(self, kind: str, port: int) -> None:
        """It answers 204."""
        self.outlet: Outlet = HttpOutlet()
        self.channel = channel(kind)
        self.target = f"http://127.0.0.1:{port}/hook?token=secret"
        self.nowhere = f"http://127.0.0.1:{free_port()}/"
        self.status, self.headers = 204, dict[str, str]()
        self.requests: list[tuple[dict[str, str], bytes]] = []

    async def answer(self, request: web.Request) -> web.Response:
        """Keep it, and say what is to be said."""
        body = await request.read()
        if self.status < 300:
            self.requests.append(({name.lower(): value for name, value in request.headers.items()}, body))
        return web.Response(status=self.status, headers=self.headers)

    def busy(self) -> None:
        """As the protocol says."""
        self.status = 503

    def closed(self) -> None:
        """As the protocol says."""
        self.status = 410

    def ids(self) -> list[str]:
        """As the protocol says; Slack gets no id, so the text tells."""
        if self.channel.kind == "slack":
            return [ALERT.event_id for _, body in self.requests if ALERT.title in json.loads(body)["text"]]
        return [headers["webhook-id"] for headers, _ in self.requests]


class MailWorld:
    """A mail server on loopback."""

    def __init__(self, port: int) -> None:
        """It takes everything."""
        self.outlet: Outlet = MailOutlet()
        self.channel = channel("email")
        query = "?from=quaestor@example.com&to=ops@example.com&to=cfo@example.com"
        self.target = f"smtp://127.0.0.1:{port}/{query}"
        self.nowhere = f"smtp://127.0.0.1:{free_port()}/{query}"
        self.word, self.farewell = "250 taken", "221 bye"
        #: What is said to recipients, where it is not that they are taken.
        self.recipients: dict[str, str] = {}
        self.mails: list[tuple[list[str], Any]] = []

    async def handle_RCPT(  # noqa: N802 - its name for it
        self, _server: object, _session: object, envelope: Any, address: str, _options: object
    ) -> str:
        """As aiosmtpd calls it."""
        word = self.recipients.get(address, "250 taken")
        if word.startswith("2"):
            envelope.rcpt_tos.append(address)
        return word

    async def handle_QUIT(self, _server: object, _session: object, _envelope: object) -> str:  # noqa: N802 - likewise
        """As aiosmtpd calls it."""
        return self.farewell

    async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:  # noqa: N802 - its name for it
        """As aiosmtpd calls it."""
        if self.word.startswith("2"):
            self.mails.append((envelope.rcpt_tos, message_from_bytes(envelope.content, policy=policy.default)))
        return self.word

    def busy(self) -> None:
        """As the protocol says."""
        self.word = "451 later"

    def closed(self) -> None:
        """As the protocol says."""
        self.word = "554 never"

    def ids(self) -> list[str]:
        """As the protocol says."""
        return [mail["Message-ID"].partition("@")[0].lstrip("<") for _, mail in self.mails]


def channel(kind: Any) -> Channel:
    """A channel of a kind."""
    return Channel(channel_id="ops", tenant_id=TENANT, kind=kind, target_ref="env:HOOK")


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@asynccontextmanager
async def http_world(kind: str) -> AsyncIterator[HttpWorld]:
    """A web server that runs."""
    port = free_port()
    world = HttpWorld(kind, port)
    application = web.Application()
    application.router.add_post("/hook", world.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield world
    finally:
        await world.outlet.close()
        await runner.cleanup()


@asynccontextmanager
async def mail_world() -> AsyncIterator[MailWorld]:
    """A mail server that runs."""
    world = MailWorld(free_port())
    port = int(world.target.split(":")[2].split("/")[0])
    controller = Controller(world, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield world
    finally:
        controller.stop()


@pytest.fixture(params=["memory", "slack", "webhook", "email"])
async def world(request: pytest.FixtureRequest, socket_enabled: None) -> AsyncIterator[World]:
    """Each outlet with its receiver."""
    if request.param == "memory":
        yield MemoryWorld()
    elif request.param == "email":
        async with mail_world() as mail:
            yield mail
    else:
        async with http_world(request.param) as http:
            yield http


async def send(world: World, target: str | None = None, secret: str | None = None) -> Receipt:
    """Send the alert once."""
    return await world.outlet.send(world.channel, ALERT, target or world.target, secret, NOW_SECONDS)


async def test_what_is_sent_is_taken(world: World) -> None:
    """Once, and the receiver can tell which alert it is."""
    assert (Sent(), [ALERT.event_id]) == (await send(world), world.ids())


async def test_a_busy_receiver_is_worth_another_attempt(world: World) -> None:
    """Later."""
    world.busy()
    assert isinstance(await send(world), Later)
    assert [] == world.ids()


async def test_a_receiver_that_refuses_is_not(world: World) -> None:
    """Never."""
    world.closed()
    assert isinstance(await send(world), Never)
    assert [] == world.ids()


async def test_nobody_there_is_worth_another_attempt(world: World) -> None:
    """Later, without the address in the reason."""
    if isinstance(world, MemoryWorld):
        world.busy()
    receipt = await send(world, world.nowhere)
    assert isinstance(receipt, Later)
    assert "127.0.0.1" not in receipt.reason


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_a_webhook_that_says_later_is_believed(socket_enabled: None, status: int) -> None:
    """With the time that it asks for."""
    async with http_world("webhook") as world:
        world.status, world.headers = status, {"retry-after": "17"}
        assert Later(f"HTTP {status}", 17.0) == await send(world)


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 405, 422])
async def test_a_webhook_that_moved_or_refuses_is_given_up(socket_enabled: None, status: int) -> None:
    """A redirect is not followed: it could lead anywhere."""
    async with http_world("webhook") as world:
        world.status, world.headers = status, {"location": world.target}
        assert Never(f"HTTP {status}") == await send(world)


@pytest.mark.parametrize(
    ("secret", "key"), [(SECRET, b"k" * 24), ("plain text", b"plain text"), ("whsec_?", b"whsec_?")]
)
async def test_a_webhook_is_signed_as_standard_webhooks_has_it(socket_enabled: None, secret: str, key: bytes) -> None:
    """HMAC-SHA256 over id, timestamp and body."""
    async with http_world("webhook") as world:
        await send(world, secret=secret)
        headers, body = world.requests[0]
    assert str(NOW_SECONDS) == headers["webhook-timestamp"]
    signed = f"{ALERT.event_id}.{NOW_SECONDS}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.new(key, signed, sha256).digest()).decode()
    assert expected == headers["webhook-signature"]
    assert secret not in repr(headers)


async def test_a_webhook_without_a_key_is_not_signed(socket_enabled: None) -> None:
    """It carries id and time."""
    async with http_world("webhook") as world:
        await send(world)
    assert "webhook-signature" not in world.requests[0][0]


@pytest.mark.parametrize(
    "target", ["", "ftp://example.com/x", "http://hooks.example.com/x", "http://[", "smtp://127.0.0.1/"]
)
async def test_an_address_that_is_none_is_given_up_without_being_repeated(socket_enabled: None, target: str) -> None:
    """In the clear only within a private network."""
    outlet = HttpOutlet()
    receipt = await outlet.send(channel("slack"), ALERT, target, None, NOW_SECONDS)
    await outlet.close()
    assert isinstance(receipt, Never)
    assert "hooks" not in receipt.reason


@pytest.mark.parametrize(
    "target",
    [
        "https://example.com/",
        "smtp://127.0.0.1/?to=a@example.com",
        "smtp://127.0.0.1/?from=a@example.com",
        "smtp://127.0.0.1:port/?from=a@example.com&to=b@example.com",
        "smtp:///?from=a@example.com&to=b@example.com",
    ],
)
async def test_a_mail_target_that_is_none_is_given_up(target: str) -> None:
    """Each lacks something."""
    assert isinstance(await MailOutlet().send(channel("email"), ALERT, target, None, NOW_SECONDS), Never)


async def test_a_mail_says_what_a_person_needs(socket_enabled: None) -> None:
    """Subject with the severity, all recipients, the text."""
    async with mail_world() as world:
        await send(world)
        recipients, mail = world.mails[0]
    assert ["ops@example.com", "cfo@example.com"] == recipients
    assert "[critical] acme: 95% of the budget is used" == mail["Subject"]
    assert "95.00 of 100.00 EUR are charged." in mail.get_content()


async def test_a_recipient_who_is_to_come_later_is_tried_alone(socket_enabled: None) -> None:
    """Greylisting: whoever has the mail does not get it again."""
    async with mail_world() as world:
        world.recipients = {"cfo@example.com": "450 greylisted"}
        first = await send(world)
        assert isinstance(first, Later)
        world.recipients = {}
        second = await world.outlet.send(world.channel, ALERT, world.target, None, NOW_SECONDS, first.ended)
    assert ("the mail server refused 1 of 2 recipients (450)", Sent()) == (first.reason, second)
    assert [["ops@example.com"], ["cfo@example.com"]] == [recipients for recipients, _ in world.mails]


async def test_a_recipient_who_never_takes_it_is_told(socket_enabled: None) -> None:
    """Without the address; the other one has the mail."""
    async with mail_world() as world:
        world.recipients = {"cfo@example.com": "550 nobody of this name"}
        receipt = await send(world)
    assert Never("the mail server refused 1 of 2 recipients (550)") == receipt
    assert [["ops@example.com"]] == [recipients for recipients, _ in world.mails]


async def test_of_recipients_who_all_refuse_those_are_tried_again_who_may_take_it(socket_enabled: None) -> None:
    """One refuses for good, one for now."""
    async with mail_world() as world:
        world.recipients = {"cfo@example.com": "550 nobody of this name", "ops@example.com": "451 busy"}
        receipt = await send(world)
    assert Later("the mail server refused 2 of 2 recipients (451, 550)", ended={"cfo@example.com": 550}) == receipt


async def test_a_fault_behind_the_first_attempt_says_who_has_the_mail(socket_enabled: None) -> None:
    """It may be the last word on it."""
    async with mail_world() as world:
        world.closed()
        ended = {"ops@example.com": 250}
        receipt = await world.outlet.send(world.channel, ALERT, world.target, None, NOW_SECONDS, ended)
    assert Never("the mail server refused it (554); 1 of 2 recipients have it") == receipt


async def test_a_plus_is_part_of_an_address(socket_enabled: None) -> None:
    """As it is written, and escaped."""
    async with mail_world() as world:
        target = world.target.replace("ops@", "ops+pager@").replace("cfo@", "cfo%2Bpager@")
        await send(world, target)
    assert [["ops+pager@example.com", "cfo+pager@example.com"]] == [recipients for recipients, _ in world.mails]


async def test_what_a_mail_server_says_to_the_farewell_changes_nothing(socket_enabled: None) -> None:
    """It has taken the mail, which is not to be sent again."""
    async with mail_world() as world:
        world.farewell = "500 what"
        assert Sent() == await send(world)


async def test_a_mail_server_that_drips_is_left_in_time(socket_enabled: None) -> None:
    """However soon each piece comes: the time is that of the whole mail, and the connection ends with it."""
    is_left = asyncio.Event()

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"220-there is more\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        is_left.set()

    outlet = MailOutlet(send_seconds=0.2)
    async with asyncio.timeout(20), await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        target = f"smtp://127.0.0.1:{port}/?from=a@example.com&to=b@example.com"
        receipt = await outlet.send(channel("email"), ALERT, target, None, NOW_SECONDS)
        await is_left.wait()
    await outlet.close()
    assert Later("no answer: TimeoutError") == receipt


async def test_a_mail_server_that_wants_a_log_in_it_does_not_offer_is_given_up(socket_enabled: None) -> None:
    """No password goes over a line without TLS."""
    async with mail_world() as world:
        target = world.target.replace("smtp://", "smtp://user:secret@")
        receipt = await send(world, target)
    assert Never("the mail server offers no TLS, or no log-in") == receipt
