"""`quaestor key create | list | revoke`: virtual keys. The key's text is printed once and kept nowhere; its hash is."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Annotated, Any

import msgspec
import typer

from api.cli.control_session import control_session
from api.cli.terminal import DataOption, JsonOption, note, print_json, table, terminal
from api.control.session import ControlSession
from api.settings import Settings, load_settings
from api.times import time_text
from processors import control
from processors.control import VirtualKey

KEY_PREFIX = "qk_"
KEY_BYTES = 32
KEY_ID_BYTES = 6

ReasonOption = Annotated[str | None, typer.Option("--reason", help="Why, for the record.")]


def app() -> typer.Typer:
    """The group."""
    group = typer.Typer(help="Virtual keys: who may call, and who pays.", no_args_is_help=True)
    group.command("create")(create)
    group.command("list")(list_keys)
    group.command("revoke")(revoke)
    return group


def create(
    tenant: Annotated[str, typer.Option(help="The organisation that pays.")],
    team: Annotated[str, typer.Option(help="The team within it.")],
    project: Annotated[str, typer.Option(help="The project within it.")],
    models: Annotated[
        str, typer.Option(help="Models and aliases it may ask for, with commas; a trailing * stands for any ending.")
    ] = "",
    name: Annotated[str, typer.Option(help="What to call it; kept for ever, so not a person's name.")] = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a virtual key; effective in every gateway within two seconds."""
    allowed = tuple(model.strip() for model in models.split(",") if model.strip())
    with control_session(load_settings(data)) as session:
        key, text = new_key(session, tenant, team, project, allowed, name)
    if as_json:
        print_json({"id": key.key_id, "key": text} | key_row(key))
        return
    print(text)
    note(f"{key.key_id} of {tenant}/{team}/{project}: the key is shown only now, keep it")


def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only keys of this tenant.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Revoked ones too.")] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List keys; their texts are not known to anybody."""
    with control_session(load_settings(data)) as session:
        keys = [
            key for key in session.state.keys.values() if tenant in {None, key.tenant_id} and (every or not key.revoked)
        ]
    rows = [key_row(key) for key in sorted(keys, key=lambda key: key.created_at)]
    if as_json:
        print_json({"keys": rows})
        return
    columns = ("key", "tenant", "team", "project", "models", "name", "created", "state")
    cells = ((*_texts(row), "revoked" if row["revoked_at"] else "active") for row in rows)
    terminal().print(table("Keys", columns, cells))


def revoke(
    key_id: Annotated[str, typer.Argument(help="Its id, key_…")],
    reason: ReasonOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a key; effective in every gateway within two seconds."""
    with control_session(load_settings(data)) as session:
        event = session.change(lambda state, origin: control.revoke_key(state, key_id, origin), reason)
    if as_json:
        print_json({"id": key_id, "revoked_at": time_text(event.occurred_at)})
    else:
        note(f"{key_id} is revoked")


def new_key(
    session: ControlSession, tenant_id: str, team_id: str, project_id: str, models: tuple[str, ...] = (), name: str = ""
) -> tuple[VirtualKey, str]:
    """Make a key in an open session; returns it and its text. Raises ControlRefusedError and LogError."""
    text = KEY_PREFIX + base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).rstrip(b"=").decode()
    key = VirtualKey(
        key_id=f"key_{os.urandom(KEY_ID_BYTES).hex()}",
        tenant_id=tenant_id,
        team_id=team_id,
        project_id=project_id,
        key_hash=hashlib.sha256(text.encode()).hexdigest(),
        allowed_models=models,
        name=name,
    )
    event = session.change(lambda state, origin: control.create_key(state, key, origin))
    return msgspec.structs.replace(key, created_at=event.occurred_at), text


def create_key(settings: Settings, *, tenant_id: str, team_id: str, project_id: str, name: str = "") -> str:
    """The text of a new key, recorded by the time this returns; gateways know it within two seconds. Blocks."""
    with control_session(settings) as session:
        return new_key(session, tenant_id, team_id, project_id, name=name)[1]


def key_row(key: VirtualKey) -> dict[str, Any]:
    """What people and programs may know of a key."""
    return {
        "id": key.key_id,
        "tenant": key.tenant_id,
        "team": key.team_id,
        "project": key.project_id,
        "models": list(key.allowed_models),
        "name": key.name,
        "created_at": time_text(key.created_at) if key.created_at else None,
        "revoked_at": time_text(key.revoked_at) if key.revoked_at else None,
    }


def _texts(row: dict[str, Any]) -> tuple[str, ...]:
    models = ", ".join(row["models"]) or "all"
    return (row["id"], row["tenant"], row["team"], row["project"], models, row["name"], (row["created_at"] or "-")[:10])
