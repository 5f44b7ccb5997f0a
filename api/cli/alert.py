"""`quaestor alert list | add | channels | remove | test`: what was told, and where alerts go."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Annotated, Any, cast

import typer
from rich.text import Text

from api.cli.control_keys import ReasonOption
from api.cli.control_session import control_session
from api.cli.terminal import DataOption, JsonOption, fail, note, print_json, table, terminal
from api.cli.times import ago_or_time, now_micros
from api.settings import load_settings
from api.times import time_text
from processors import control
from processors.control import CHANNEL_KINDS, SEVERITY_FLOORS, Channel
from processors.control.entities import ChannelKind, SeverityFloor
from processors.guardrails import trial_alert
from schemas.ids import RANDOM_BYTES_PER_UUID7, uuid7
from schemas.topics import SYSTEM_TENANT
from sinks.postgres.alerts import ToldAlert, told_alerts

COLOURS = {"CRITICAL": "red", "WARNING": "yellow", "INFO": "green", "FAILED": "red", "SENT": "green"}
TenantOption = Annotated[str, typer.Option(help="Whose; the operator's own when not given.")]
ChannelArgument = Annotated[str, typer.Argument(help="The channel's name.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="What was told, and where alerts go.", no_args_is_help=True)
    group.command("list")(list_alerts)
    group.command("add")(add)
    group.command("channels")(channels)
    group.command("remove")(remove)
    group.command("test")(try_channel)
    app.add_typer(group, name="alert")


def list_alerts(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    since: Annotated[str, typer.Option(help="From when on: 2h, 7d, or ISO 8601.")] = "7d",
    most: Annotated[int, typer.Option("--most", min=1, max=1_000, help="At most so many, the newest.")] = 50,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Alerts, the newest first, and what became of them at each channel."""
    since_micros = ago_or_time(since, now_micros())
    told = asyncio.run(told_alerts(load_settings(data).postgres_dsn, tenant, since_micros, most))
    if as_json:
        print_json({"alerts": [_row(one) for one in told]})
        return
    shown = table("Alerts", ("when (UTC)", "severity", "what", "told"), ())
    for one in told:
        severity = Text(one.severity.lower(), COLOURS.get(one.severity, ""))
        what = Text.assemble((one.title, "bold"), f"\n{one.detail}")
        shown.add_row(
            Text(time_text(one.occurred_at)[5:19].replace("T", " "), no_wrap=True), severity, what, _ends(one)
        )
    terminal().print(shown)


def _ends(one: ToldAlert) -> Text:
    if not one.deliveries:
        return Text("nobody yet", "dim")
    parts = [(f"{end.channel_id} {end.state.lower()}", COLOURS.get(end.state, "")) for end in one.deliveries]
    return Text("\n").join(Text(*part) for part in parts)


def _row(one: ToldAlert) -> dict[str, Any]:
    return {
        "id": one.event_id,
        "when": time_text(one.occurred_at),
        "tenant": one.tenant_id,
        "kind": one.kind.lower(),
        "severity": one.severity.lower(),
        "title": one.title,
        "detail": one.detail,
        "subject": one.subject,
        "deliveries": [
            {
                "channel": end.channel_id,
                "state": end.state.lower(),
                "when": time_text(end.occurred_at),
                "how": end.detail,
            }
            for end in one.deliveries
        ],
    }


def add(
    channel: ChannelArgument,
    kind: Annotated[str, typer.Option(help=f"One of {', '.join(CHANNEL_KINDS)}.")],
    target: Annotated[
        str,
        typer.Option(
            help="env:NAME or file:PATH that holds the webhook's URL, or smtp(s)://user:password@host?from=…&to=…."
        ),
    ],
    tenant: TenantOption = SYSTEM_TENANT,
    secret: Annotated[
        str | None, typer.Option(help="env:NAME or file:PATH of the key that signs a webhook's body.")
    ] = None,
    severity: Annotated[str, typer.Option(help=f"From here on: {', '.join(SEVERITY_FLOORS)}.")] = "info",
    replace: Annotated[bool, typer.Option("--replace", help="Change a channel that exists.")] = False,
    reason: ReasonOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a channel. Alerts from now on are sent there, by `quaestor stream guardrails`, which reads the references."""
    added = Channel(
        channel_id=channel,
        tenant_id=tenant,
        kind=cast("ChannelKind", kind),
        target_ref=target,
        secret_ref=secret,
        severity=cast("SeverityFloor", severity),
    )
    with control_session(load_settings(data)) as session:
        session.settle(lambda state, origin: control.add_channel(state, added, origin, replace=replace), reason)
    if as_json:
        print_json(_channel_row(added))
    else:
        note(f"alerts of {tenant} from {severity} on go to {channel} ({kind})")


def channels(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List channels."""
    with control_session(load_settings(data)) as session:
        found = [one for _, one in sorted(session.state.channels.items()) if tenant in {None, one.tenant_id}]
    if as_json:
        print_json({"channels": [_channel_row(one) for one in found]})
        return
    cells = [
        (one.tenant_id, one.channel_id, one.kind, one.target_ref, one.secret_ref or "-", one.severity) for one in found
    ]
    terminal().print(table("Channels", ("tenant", "channel", "kind", "target", "signed with", "from"), cells))


def remove(
    channel: ChannelArgument, tenant: TenantOption = SYSTEM_TENANT, reason: ReasonOption = None, data: DataOption = None
) -> None:
    """Remove a channel; what was not sent by then is not sent."""
    with control_session(load_settings(data)) as session:
        session.change(lambda state, origin: control.remove_channel(state, tenant, channel, origin), reason)
    note(f"channel {channel} is removed")


def try_channel(channel: ChannelArgument, tenant: TenantOption = SYSTEM_TENANT, data: DataOption = None) -> None:
    """Send one test alert from this machine, with the references as they are read here. Nothing is recorded."""
    with control_session(load_settings(data)) as session:
        found = session.state.channels.get((tenant, channel))
    if found is None:
        fail(f"tenant {tenant!r} has no channel {channel!r}; `quaestor alert channels` shows them")
    fault = asyncio.run(_try(found))
    if fault is not None:
        fail(f"{channel}: {fault}")
    note(f"{channel} took it")


async def _try(channel: Channel) -> str | None:
    """Why it was not taken, None when it was; raises QuaestorError for a reference that can't be read."""
    from api.alerts.outlets import Sent  # noqa: PLC0415 - keeps the other commands fast
    from api.alerts.process import outlets  # noqa: PLC0415 - likewise
    from api.providers.secrets import Secrets  # noqa: PLC0415 - likewise

    secrets, made, now = Secrets(), outlets(), now_micros()
    alert = trial_alert(channel, uuid7(now, os.urandom(RANDOM_BYTES_PER_UUID7)), now)
    target, secret = secrets.resolve(channel.target_ref) or "", secrets.resolve(channel.secret_ref)
    try:
        receipt = await made[channel.kind].send(channel, alert, target, secret, int(time.time()))
    finally:
        for outlet in set(made.values()):
            await outlet.close()
    return None if isinstance(receipt, Sent) else receipt.reason


def _channel_row(channel: Channel) -> dict[str, Any]:
    return {
        "channel": channel.channel_id,
        "tenant": channel.tenant_id,
        "kind": channel.kind,
        "target": channel.target_ref,
        "secret": channel.secret_ref,
        "severity": channel.severity,
    }
