"""What `quaestor why` says of an event is a sentence, whatever the event leaves out."""

from __future__ import annotations

import pytest

from api.why.story import said, steps
from processors.audit.marks import Mark, MarkState
from schemas import topics
from sinks.postgres.reads import StoredEvent


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


@pytest.mark.parametrize(("expired_at", "flag", "late"), [(7, False, True), (9, True, False), (None, True, False)])
def test_a_charge_is_late_where_its_hold_had_expired_in_the_log(expired_at: int | None, flag: bool, late: bool) -> None:
    """Whatever whoever charged it knew: its lease was over, or its event lay in a spool."""
    told = [_movement("PLACED", 6), _movement("COMMITTED", 8, late=flag)]
    told += [] if expired_at is None else [_movement("EXPIRED", expired_at)]

    found = steps(told, [Mark(MarkState.PENDING)] * len(told))

    assert [late] == [", late" in step.summary for step in found if step.kind == "COMMITTED"]


def _movement(kind: str, offset: int, *, late: bool = False) -> StoredEvent:
    """A movement of one hold."""
    said_of_it = {"kind": kind, "hold_id": "h1", "amount_nano": 1, "currency": "USD", "legs": [], "reason": None}
    return StoredEvent(topics.BUDGETS.name, 0, offset, f"e{offset}", "acme", 1, said_of_it | {"late": late})
