"""What `quaestor why` says of an event is a sentence, whatever the event leaves out."""

from __future__ import annotations

import pytest

from api.why.story import said
from schemas import topics


@pytest.mark.parametrize(
    ("code", "detail", "summary"),
    [
        ("internal_error", None, "500 internal_error"),
        ("provider_error", "HTTP 500", "500 provider_error: HTTP 500"),
        (None, None, "500"),
    ],
)
def test_an_error_without_detail_ends_with_its_code(code: str | None, detail: str | None, summary: str) -> None:
    """No colon with nothing after it."""
    fields = {"kind": "FAILED", "status_code": 500, "error_code": code, "error_detail": detail}

    assert ("FAILED", summary) == said(topics.REQUESTS.name, fields)


@pytest.mark.parametrize(("amount", "words"), [(1, "lim_a: 1 request"), (2, "lim_a: 2 requests")])
def test_a_hold_of_one_request_is_one(amount: int, words: str) -> None:
    """A limit on requests holds one of them."""
    leg = {"limit_id": "lim_a", "amount_nano": amount, "currency": "REQ"}
    fields = {"kind": "PLACED", "amount_nano": 0, "currency": "USD", "legs": [leg], "late": False, "reason": None}

    assert ("PLACED", f"0.00 USD on {words}") == said(topics.BUDGETS.name, fields)


def test_a_booked_request_is_one() -> None:
    """The ledger counts requests and tokens as whole ones."""
    fields = {"kind": "PENDING", "amount_nano": 1, "currency": "REQ", "memo": "hold"}
    accounts = {"debit_account": "budget/lim_a/available", "credit_account": "budget/lim_a/held"}

    words = "pending 1 request: budget/lim_a/available -> budget/lim_a/held (hold)"
    assert ("LEDGER", words) == said(topics.LEDGER.name, fields | accounts)


@pytest.mark.parametrize(("quantity", "words"), [(1, "1 input token x"), (2, "2 input tokens x")])
def test_a_charged_token_is_one(quantity: int, words: str) -> None:
    """A charge says how much of its meter it is for."""
    fields = {"kind": "CHARGE", "meter": "INPUT_TOKENS", "quantity": quantity, "unit_price_pico": 150_000}
    of_it = said(topics.COSTS.name, fields | {"amount_nano": 150, "currency": "USD", "estimated": False})

    assert ("CHARGE", f"{words} 0.15 per million = 0.00000015 USD") == of_it
