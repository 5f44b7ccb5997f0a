"""The pipelined client on a real Valkey: what it survives, and what it says when it can't."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

from schemas.errors import ConfigurationError, StoreUnavailableError
from sinks.redis.client import RedisClient
from sinks.redis.connection import ReplyError
from sinks.redis.keys import gate_key
from sinks.redis.sink import RedisSink
from tests.support.live_budgets import until
from tests.valkey import Valkey


@pytest.fixture
async def client(valkey: Valkey) -> AsyncIterator[RedisClient]:
    """A connected client that gives up on an answer quickly."""
    client = RedisClient(valkey.url, call_timeout_seconds=0.3)
    await client.open()
    yield client
    await client.close()


async def test_replies_go_to_those_who_asked(valkey: Valkey) -> None:
    """Thousands of commands in one write, each with its own answer, however long a busy machine takes."""
    client = RedisClient(valkey.url, call_timeout_seconds=60)
    await client.open()
    try:
        answers = await asyncio.gather(*(client.call("ECHO", str(number)) for number in range(5_000)))
    finally:
        await client.close()
    assert [int(answer) for answer in answers] == list(range(5_000))


async def test_a_cancelled_caller_disturbs_nobody(client: RedisClient) -> None:
    """Its reply is thrown away, the next ones go where they belong."""
    gone = asyncio.create_task(client.call("ECHO", "gone"))
    stays = asyncio.create_task(client.call("ECHO", "stays"))
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays == b"stays"


async def test_a_script_the_server_lacks_is_sent_whole(client: RedisClient, valkey: Valkey) -> None:
    """After SCRIPT FLUSH, a restart, or on a new node."""
    valkey.command("SCRIPT", "FLUSH")
    assert (await client.run("gate_read", (gate_key(0),)))[:2] == [b"", b""]


async def test_an_error_reply_is_a_fault_of_that_call_alone(client: RedisClient) -> None:
    """The connection goes on."""
    with pytest.raises(ReplyError, match="wrong number of arguments"):
        await client.call("GET")
    assert await client.call("PING") == b"PONG"


async def test_calls_fail_at_once_while_the_server_is_away(client: RedisClient, valkey: Valkey) -> None:
    """And work again by themselves when it is back, with another run id."""
    before = client.run_id
    valkey.kill()

    async def fails() -> bool:
        try:
            return await client.call("PING") != b"PONG"
        except StoreUnavailableError:
            return True

    await until(fails, "a fault")
    valkey.start()

    async def back() -> bool:
        return client.connected and client.run_id not in {"", before}

    await until(back, "a connection to the new run")


async def test_a_server_that_hangs_counts_as_away(client: RedisClient, valkey: Valkey) -> None:
    """Every caller gets a fault within the time-out and a little."""
    os.kill(valkey.process_id, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailableError):
            await asyncio.wait_for(client.call("PING"), 5)
    finally:
        os.kill(valkey.process_id, signal.SIGCONT)


async def test_a_password_in_the_url_is_used(valkey: Valkey) -> None:
    """Without it nothing can be asked."""
    valkey.command("CONFIG", "SET", "requirepass", "secret")
    without, having = RedisClient(valkey.url), RedisClient(valkey.url.replace("unix://", "unix://:secret@"))
    await without.open()
    await having.open()
    assert (without.connected, having.connected) == (False, True)
    await without.close()
    await having.close()


async def test_a_server_that_may_evict_is_refused(valkey: Valkey) -> None:
    """A hold could vanish; the message says what to set."""
    valkey.command("CONFIG", "SET", "maxmemory", "100mb")
    valkey.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    sink = RedisSink(valkey.url)
    with pytest.raises(ConfigurationError, match="maxmemory-policy to noeviction"):
        await sink.open()
    await sink.close()


def test_an_url_that_is_none_is_refused() -> None:
    """The setting is named."""
    with pytest.raises(ConfigurationError, match="redis_url"):
        RedisClient("http://127.0.0.1")
