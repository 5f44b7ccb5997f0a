"""The report as one page: nothing is loaded, nothing runs, and every name is text."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from api.report.drawings import bar, figure
from api.report.markup import Html, joined, tag
from processors.report.figures import Report, TenantReport
from processors.report.plots import plots
from processors.report.words import (
    PERCENT,
    Cell,
    Marked,
    Share,
    Table,
    facts,
    overview,
    rules,
    standing,
    tables,
    verdict,
)

STYLE_FILE = Path(__file__).with_name("page.css")


def page(report: Report) -> str:
    """The whole document."""
    style = STYLE_FILE.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    title = f"Quaestor: report of {report.day}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        Html(f"<style>{style}</style>"),
    )
    sections = (_section(number, each, report) for number, each in enumerate(report.tenants))
    body = tag("body", _header(report), tag("main", _summary(report), *sections, _table(standing(report))))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _header(report: Report) -> Html:
    known = (joined(tag("dt", name), tag("dd", text)) for name, text in facts(report))
    return tag("header", tag("h1", f"Report of {report.day}"), _badge(verdict(report)), tag("dl", *known))


def _summary(report: Report) -> Html:
    if len(report.tenants) <= 1:
        return joined(_table(overview(report)), _table(rules(report)))
    links = (
        tag("li", tag("a", each.tenant_id, href=f"#tenant-{number}")) for number, each in enumerate(report.tenants)
    )
    listed = tag("nav", tag("ul", *links), aria_label="Tenants")
    return joined(_table(overview(report)), listed, _table(rules(report)))


def _section(number: int, tenant: TenantReport, report: Report) -> Html:
    mark = Marked("matches", "good") if tenant.ok else Marked("differs", "bad")
    drawn = tag("div", *(figure(plot) for plot in plots(tenant, report)), class_="plots")
    told = (_table(each) for each in tables(tenant, report.time_zone))
    title = tag("h2", tenant.tenant_id, " ", _badge(mark), id=f"title-{number}")
    return tag("section", title, drawn, *told, id=f"tenant-{number}", aria_labelledby=f"title-{number}")


def _table(table: Table) -> Html:
    head = (
        tag("th", name, scope="col", class_="number" if position in table.numbers else "text")
        for position, name in enumerate(table.columns)
    )
    rows = (tag("tr", *(_cell(cell, place in table.numbers) for place, cell in enumerate(row))) for row in table.rows)
    made = tag(
        "table",
        tag("caption", table.title),
        tag("thead", tag("tr", *head)),
        tag("tbody", *rows),
    )
    note = tag("p", table.note, class_="note") if table.note else Html("")
    # A table that is wider than the screen is scrolled by itself, with the keyboard too.
    return joined(tag("div", made, class_="scroll", role="region", aria_label=table.title, tabindex=0), note)


def _cell(cell: Cell, is_number: bool) -> Html:
    if isinstance(cell, Share):
        words = tag("span", f"{cell.percent} %", class_="hidden")
        return tag("td", bar(cell.percent, PERCENT, cell.level), words, class_="share")
    if isinstance(cell, Marked):
        return tag("td", _badge(cell))
    return tag("td", cell, class_="number" if is_number else "text")


def _badge(marked: Marked) -> Html:
    return tag("strong", marked.text, class_=f"badge {marked.level}")
