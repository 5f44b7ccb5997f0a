"""How many limits one call can meet. A hold has LEGS_MAX legs, and a call that needs more is refused for good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from processors.control.check import Refusal, RefusalCode
from processors.control.entities import EACH, SCOPES, Limit
from processors.control.state import ControlState
from schemas.limits import LEGS_MAX, TAGS_MAX

#: Models that one call counts as: the one that was asked for, and the one that serves it.
MODELS_PER_CALL = 2


def too_long(state: ControlState, limit: Limit, now_micros: int) -> Refusal | None:
    """Whether, with this limit, some call could meet more limits than a hold has legs, and more than without it.

    The worst call is looked for, since callers choose tags, users, runs and models, and keys are made any time.
    """
    others = [each for each in state.limits.values() if each.tenant_id == limit.tenant_id]
    before, after = _worst(others, now_micros), _worst(_with(others, limit), now_micros)
    if after.total() <= max(LEGS_MAX, before.total()):
        return None
    where = ", ".join(f"{scope} {after[scope]}" for scope in reversed(SCOPES) if after[scope])
    message = (
        f"a call could stand under {after.total()} limits ({where}), and {LEGS_MAX} are the most that one holds: "
        "such calls would be refused (503); remove a limit first, or let its time end before"
    )
    return Refusal(RefusalCode.TOO_MANY, message)


def _with(others: Iterable[Limit], limit: Limit) -> list[Limit]:
    return [*(each for each in others if each.limit_id != limit.limit_id), limit]


def _worst(limits: list[Limit], now_micros: int) -> Counter[str]:
    """Limits by scope of the call that meets most, at the moment from now on when that is."""
    moments = {now_micros, *(each.valid_from for each in limits if (each.valid_from or 0) > now_micros)}
    at_once = ([each for each in limits if each.in_force(moment or 0)] for moment in moments)
    return max((_most(found) for found in at_once), key=Counter.total)


def _most(limits: Iterable[Limit]) -> Counter[str]:
    by_scope: dict[str, Counter[str]] = {}
    for limit in limits:
        by_scope.setdefault(limit.scope, Counter())[limit.scope_id] += 1
    return Counter({scope: _most_of(scope, things) for scope, things in by_scope.items()})


def _most_of(scope: str, things: Mapping[str, int]) -> int:
    """Limits of a scope that one call can meet: those on each apart, and those on one thing."""
    if scope != "tag":
        return _most_on(things, MODELS_PER_CALL if scope == "model" else 1)
    names: dict[str, dict[str, int]] = {}
    for tag, limits in things.items():
        name, _, value = tag.partition("=")
        names.setdefault(name, {})[value] = limits
    return sum(sorted((_most_on(values, 1) for values in names.values()), reverse=True)[:TAGS_MAX])


def _most_on(things: Mapping[str, int], together: int) -> int:
    """The most that so many different things meet together."""
    alone = sorted((limits for thing, limits in things.items() if thing != EACH), reverse=True)
    return together * things.get(EACH, 0) + sum(alone[:together])
