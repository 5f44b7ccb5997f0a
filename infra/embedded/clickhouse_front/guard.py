"""What no grant stops: chDB's own ways to files of this machine, refused before the engine sees them.

users.xml grants neither FILE nor URL, and no dictionaries (an `executable` one runs programs). Four holes remain in
chDB, which takes itself for a local tool: the scalar function file(), which reads any file and can hide behind a quoted
or escaped name, APPLY or arrayMap; SELECT … INTO OUTFILE; INSERT … FROM INFILE; and Python(), which reads objects of
this process. Text that could hold one is parsed by the engine (EXPLAIN AST), and the parse decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from infra.embedded.clickhouse_front.faults import ACCESS_DENIED, FrontError

#: Cheap first look; a backslash may spell a name inside a quoted identifier.
SUSPICIOUS = re.compile(r"file|python|executable|\\", re.IGNORECASE)
CLIENT_FILES = re.compile(r"\b(outfile|infile)\b", re.IGNORECASE)
FUNCTION = re.compile(r"\b(?:Function|Identifier) (file|[Pp]ython|executable)\b(?!\.)")
#: Settings whose value is an expression, which no parse of the statement shows.
EXPRESSION_SETTING = re.compile(r"additional_(table_filters|result_filter)", re.IGNORECASE)


def check(sql: str, settings: Mapping[str, str], explain: Callable[[str], str]) -> None:
    """Raise FrontError when the statement reaches for files or for objects of this process.

    `explain` answers the engine's parse of a statement, and raises when it can't be parsed.
    """
    for name, value in settings.items():
        if EXPRESSION_SETTING.fullmatch(name) and SUSPICIOUS.search(value):
            raise _refusal(f"the setting {name} with such an expression")
    if not SUSPICIOUS.search(sql):
        return
    if CLIENT_FILES.search(sql):
        raise _refusal("INTO OUTFILE and FROM INFILE")
    if EXPRESSION_SETTING.search(sql):
        raise _refusal("an additional filter with such an expression")
    tree = explain(sql)
    found = FUNCTION.search(tree)
    if found or "ColumnsApplyTransformer" in tree:
        raise _refusal(f"the name {found.group(1)}" if found else "APPLY beside such a name")


def values_may_be_evaluated(data: bytes) -> bool:
    """Whether the rows of a VALUES clause may hold expressions; literals always may stand there."""
    return re.search(rb"file|python|executable|\\x", data, re.IGNORECASE) is None


def _refusal(what: str) -> FrontError:
    return FrontError(ACCESS_DENIED, f"{what} could read files of this machine: refused by the embedded ClickHouse")
