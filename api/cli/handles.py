"""Handles of end users, under which events and limits know them."""

from __future__ import annotations

from collections.abc import Container

from api.settings import Settings


async def handle(settings: Settings, tenant: str, user: str, erased: Container[str]) -> str:
    """The end user's handle, made when they were never seen; `erased` has the handles that are gone.

    Raises StoreUnavailableError, and ConfigurationError when the vault's keys are unusable.
    """
    from api.gateway.vault_keys import open_vault  # noqa: PLC0415 - loaded where somebody limits a user

    vault = open_vault(settings.postgres_dsn, settings.vault_keys, settings.data, erased.__contains__)
    try:
        return (await vault.subject(tenant, user)).handle
    finally:
        await vault.close()
