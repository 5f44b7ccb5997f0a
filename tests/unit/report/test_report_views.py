"""The report as people see it: one page that loads and runs nothing, text that steers no terminal, whole files."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from api.cli.report_view import as_text, show
from api.report.drawings import figure
from api.report.files import write_all, write_whole
from api.report.markup import joined, tag
from api.report.page import page
from processors.report.figures import Charge, Report, WindowSpend
from processors.report.plots import Bar, Plot
from processors.report.words import ROWS_MAX, printable
from schemas.errors import ConfigurationError
from tests.budget_world import limit_on
from tests.support.reports import HOSTILE, broken, day, figures, report

VOID = {"meta", "rect", "line"}
ACTIVE = {"script", "iframe", "object", "embed", "link", "img", "base", "form", "input", "button", "style"}


class Parsed(HTMLParser):
    """What a browser would see: every element with its attributes, and every text."""

    def __init__(self, document: str) -> None:
        """Parse at once."""
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element begins."""
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element without content."""
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """The element that began last ends."""
        assert tag == self.open.pop()

    def handle_data(self, data: str) -> None:
        """A text."""
        self.texts.append(data)

    def named(self, name: str) -> list[dict[str, str | None]]:
        """Attributes of all elements of a name."""
        return [attributes for tag, attributes in self.elements if tag == name]


@pytest.fixture(scope="module")
def hostile() -> str:
    """A page whose every name tries to break out, the tenant's too."""
    return page(report({HOSTILE: broken(HOSTILE), "acme": figures(HOSTILE)}))


def test_every_element_is_closed(hostile: str) -> None:
    """In the order in which they began."""
    assert [] == Parsed(hostile).open


def test_hostile_names_are_text(hostile: str) -> None:
    """A name that is markup, quotes and control characters is shown and does nothing."""
    parsed = Parsed(hostile)

    assert {"style"} == {name for name, _ in parsed.elements if name in ACTIVE}
    assert any(printable(HOSTILE) == text for text in parsed.texts)
    assert not any(name.startswith("on") for _, attributes in parsed.elements for name in attributes)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e]", hostile)


def test_nothing_is_loaded(hostile: str) -> None:
    """No address stands in any attribute but places on this page, and the style loads nothing."""
    parsed = Parsed(hostile)
    addresses = {
        value for _, attributes in parsed.elements for name, value in attributes.items()
        if name in {"href", "src", "action", "data", "srcset", "poster", "xlink:href", "background"}
    }  # fmt: skip

    assert {"#tenant-0", "#tenant-1"} == addresses
    assert "url(" not in hostile
    assert "@import" not in hostile


def test_the_policy_allows_this_style_and_nothing_else() -> None:
    """The browser itself would refuse what is not this very style."""
    made = page(report())
    style = made.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [each for each in Parsed(made).named("meta") if each.get("http-equiv") == "Content-Security-Policy"]

    assert f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'" == policy["content"]
    assert "style=" not in made


def test_the_page_can_be_read_without_seeing_it() -> None:
    """A language, a title, a caption on every table of figures, a title on every picture; other drawings are hidden."""
    made = page(report({"acme": broken()}))
    parsed = Parsed(made)
    pictures = [each for each in parsed.named("svg") if each.get("aria-hidden") != "true"]

    assert [{"lang": "en"}] == parsed.named("html")
    assert 1 == len(parsed.named("title")) - made.count("<g>") - len(pictures)
    assert all(each.get("role") == "img" for each in pictures)
    assert made.count('class="scroll"') == made.count("<caption>") > 10
    assert all(each.get("scope") in {"col", "row"} for each in parsed.named("th"))


@pytest.mark.parametrize("of", [day(), day("2026-10-25", "Europe/Berlin"), day("2026-03-29", "Europe/Berlin")], ids=str)
def test_every_hour_of_the_day_has_its_column(of: object) -> None:
    """The day on which clocks change has 23 or 25."""
    made = page(report(of=of))  # type: ignore[arg-type] # a Day
    hours = made.partition('class="hours"')[2].partition("</p>")[0].count("<span")

    assert hours == made.count("o&#x27;clock: ") == (of.ends_at - of.starts_at) // 3_600_000_000  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("values", "whole", "widths"),
    [
        ((50, 25), 0, ["1000", "500"]),
        ((1, 0), 100, ["10", "0"]),
        ((99, 150), 100, ["660", "1000"]),
        ((1, 10_000), 0, ["4", "1000"]),
        ((0, -5), 0, ["0", "0"]),
    ],
)
def test_bars_are_as_long_as_they_say(values: tuple[int, ...], whole: int, widths: list[str]) -> None:
    """Beside the longest, or beside the whole where there is one; what is not nothing is seen."""
    plot = Plot("bars", "rows", tuple(Bar("one", value, str(value)) for value in values), whole)
    drawn = Parsed(figure(plot)).named("rect")

    assert widths == [each["width"] for each in drawn if each["class"] == "plain"]


def test_text_is_escaped_where_it_meets_markup() -> None:
    """Once: markup that was made here stays markup."""
    inner = tag("b", "<&>", title='"x"')

    assert '<p><b title="&quot;x&quot;">&lt;&amp;&gt;</b>&#x27;</p>' == tag("p", inner, "'")
    assert "<b" in joined(inner)


@pytest.mark.parametrize(
    "made", [report({HOSTILE: broken(HOSTILE)}), report({}), report()], ids=["hostile", "empty", "ok"]
)
def test_text_steers_no_terminal(made: Report) -> None:
    """No control characters but line ends, whatever names say; and no colours in a file."""
    text = as_text(made)

    assert all(each.isprintable() for each in text.replace("\n", ""))
    assert f"Report of {made.day}" in text


def test_colours_where_they_are_asked_for() -> None:
    """A terminal gets them, and not a word more than the file."""
    console = Console(
        force_terminal=True, width=160, color_system="standard", highlight=False, record=True, quiet=False
    )
    with console.capture() as captured:
        show(console, report({"acme": broken()}))

    assert "\x1b[" in captured.get()
    assert as_text(report({"acme": broken()})) == re.sub(r"\x1b\[[0-9;]*m", "", captured.get())


def test_long_tables_say_what_they_leave_out() -> None:
    """The terminal and the page show the first rows; the JSON has all."""
    found = figures()
    found.charges += [Charge("p", f"m{number}", "INPUT_TOKENS", False, "USD", 1, 1, 0) for number in range(100)]
    made = report({"acme": found})

    hidden = f"{len(found.charges) - ROWS_MAX} more rows: the JSON has them."
    assert hidden in as_text(made)
    assert hidden in page(made)


def test_counters_that_are_not_listed_are_counted() -> None:
    """Of a limit on each run the fullest are listed, and the number of the others said."""
    found, limit = figures(), limit_on("run", "*", 1_000, window="total")
    found.limits.append(msgspec.json.encode(limit).decode())
    found.windows += [WindowSpend(f"{limit.limit_id}.{number}", "USD", 0, number, 0, 3_001) for number in range(20)]
    made = report({"acme": found})

    assert "Less full and not listed: 2,981 of each run (total)." in " ".join(as_text(made).split())
    assert "Less full and not listed: 2,981 of each run (total)." in page(made)


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    """Made again they hold the newer text, and nothing else is left in the folder."""
    for text in ("first", "second"):
        paths = write_all(tmp_path / "new", "2026-11-20", {"txt": text, "json": "{}"})

    assert ["report-2026-11-20.txt", "report-2026-11-20.json"] == [path.name for path in paths]
    assert "second" == paths[0].read_text()
    assert {path.name for path in paths} == {path.name for path in (tmp_path / "new").iterdir()}


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """In one line; what stood there before is left as it was, and nothing is left beside it."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")

    for path in (tmp_path / "folder", tmp_path / "file" / "report.html"):
        with pytest.raises(ConfigurationError, match="cannot write"):
            write_whole(path, "x")

    assert ["file", "folder"] == sorted(path.name for path in tmp_path.iterdir())
    assert "mine" == (tmp_path / "file").read_text()
