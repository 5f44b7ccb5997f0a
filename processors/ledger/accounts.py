"""What accounts are called: class/owner, or class/owner/name. An account keeps one currency."""

from __future__ import annotations

NOBODY = "-"
BUDGET, HELD = "budget/", "/held"


class Accounts:
    """Names of accounts. The first four belong to a limit and move with its holds."""

    @staticmethod
    def available(limit_id: str) -> str:
        """Where holds come from: the limit's amount plus this balance (credits - debits) is what is free."""
        return f"budget/{limit_id}/available"

    @staticmethod
    def held(limit_id: str) -> str:
        """What open holds keep."""
        return f"budget/{limit_id}/held"

    @staticmethod
    def reserved_from(account: str) -> tuple[str, str] | None:
        """Debit and credit of the pending transfer that a resolution out of this account takes from.

        That is available and held of the same limit; None for an account that holds nothing.
        """
        if not account.startswith(BUDGET) or not account.endswith(HELD):
            return None
        return Accounts.available(account[len(BUDGET) : -len(HELD)]), account

    @staticmethod
    def spent(limit_id: str) -> str:
        """What was charged, overage included."""
        return f"budget/{limit_id}/spent"

    @staticmethod
    def overage(limit_id: str) -> str:
        """Where charges above their hold come from: the provider's bill is real, so it is booked and shown, not cut."""
        return f"budget/{limit_id}/overage"

    @staticmethod
    def expense(team_id: str | None, key_id: str | None, project_id: str | None) -> str:
        """Who used it: the team, else the key; the project within."""
        return f"expense/{team_id or key_id or NOBODY}/{project_id or NOBODY}"

    @staticmethod
    def payable(provider_id: str) -> str:
        """What the provider will bill."""
        return f"payable/{provider_id}"

    @staticmethod
    def clearing(provider_currency: str, currency: str) -> str:
        """Where one currency becomes another, so that each balances by itself."""
        return f"clearing/{provider_currency}/{currency}"
