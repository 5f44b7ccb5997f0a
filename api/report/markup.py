"""HTML made of elements: every text is escaped, unless it is made here."""

from __future__ import annotations

from html import escape

from processors.report.words import printable

#: Elements that have no end.
VOID = frozenset({"meta", "rect", "line"})


class Html(str):
    """Markup; any other text is escaped where it meets markup."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str | int) -> Html:
    """An element; `class_` is class, other underscores are hyphens."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(printable(str(value)))}"' for key, value in attributes.items()
    )
    if name in VOID:
        return Html(f"<{name}{given}/>" if name != "meta" else f"<{name}{given}>")
    return Html(f"<{name}{given}>{joined(*children)}</{name}>")


def joined(*children: str) -> Html:
    """Elements and texts behind each other."""
    return Html("".join(each if isinstance(each, Html) else escape(printable(each)) for each in children))
