"""The ledger: double-entry transfers from budget movements and cost lines."""

from __future__ import annotations

from processors.ledger.accounts import Accounts
from processors.ledger.poster import LedgerPoster, LedgerState

__all__ = ["Accounts", "LedgerPoster", "LedgerState"]
