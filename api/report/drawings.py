"""Plots as inline SVG: bars side by side with their hours below, or a table whose rows have bars."""

from __future__ import annotations

from api.report.markup import Html, joined, tag
from processors.report.plots import Bar, Plot

#: Units of the drawing, which is stretched to the width there is.
WIDTH, HEIGHT = 1_000, 160
#: Of the width that a bar stands in.
GAP = 6
BAR_HEIGHT = 10
#: Lines across the columns.
LINES = (0, 1, 2, 3, 4)
#: A label below every third column.
LABELS_EVERY = 3
#: A value that is not nothing is seen.
LEAST = 4


def figure(plot: Plot) -> Html:
    """A plot under its title."""
    drawn = _columns(plot) if plot.shape == "columns" else _rows(plot)
    return tag("figure", tag("figcaption", plot.title), drawn)


def bar(length: int, longest: int, level: str) -> Html:
    """One bar that lies, as long as the cell allows; what it says stands beside it in words."""
    width = min(WIDTH, WIDTH * max(0, length) // longest)
    full = tag("rect", class_="track", width=WIDTH, height=BAR_HEIGHT)
    value = tag("rect", class_=level, width=max(width, LEAST if length > 0 else 0), height=BAR_HEIGHT)
    box = f"0 0 {WIDTH} {BAR_HEIGHT}"
    return tag("svg", full, value, class_="bar", viewBox=box, preserveAspectRatio="none", aria_hidden="true")


def _rows(plot: Plot) -> Html:
    longest = max([plot.whole, *(one.value for one in plot.bars)]) or 1
    rows = (
        tag(
            "tr",
            tag("th", one.label, scope="row"),
            tag("td", bar(one.value, longest, one.level), class_="wide"),
            tag("td", one.text, class_="number"),
        )
        for one in plot.bars
    )
    return tag("table", tag("tbody", *rows), class_="plot")


def _columns(plot: Plot) -> Html:
    highest = max(plot.bars, key=lambda one: one.value)
    step = WIDTH // len(plot.bars)
    lines = (_line(number) for number in LINES)
    drawn = (_column(one, number * step, step, highest.value or 1) for number, one in enumerate(plot.bars))
    title = f"{plot.title}: at most {highest.text} in the hour from {highest.label}"
    drawing = tag(
        "svg",
        tag("title", title),
        *lines,
        *drawn,
        class_="columns",
        viewBox=f"0 0 {step * len(plot.bars)} {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
    )
    labels = (tag("span", one.label if number % LABELS_EVERY == 0 else "") for number, one in enumerate(plot.bars))
    top = tag("p", f"highest: {highest.text}, from {highest.label} o'clock", class_="top")
    return joined(top, drawing, tag("p", *labels, class_="hours", aria_hidden="true"), _alternative(plot))


def _line(number: int) -> Html:
    height = HEIGHT - HEIGHT * number // LINES[-1]
    return tag("line", class_="grid", x1=0, x2=WIDTH, y1=height, y2=height)


def _column(one: Bar, left: int, step: int, highest: int) -> Html:
    height = max(HEIGHT * max(0, one.value) // highest, LEAST if one.value > 0 else 0)
    words = tag("title", f"{one.label} o'clock: {one.text}")
    shape = tag("rect", class_=one.level, x=left + GAP // 2, y=HEIGHT - height, width=step - GAP, height=height)
    return tag("g", words, shape)


def _alternative(plot: Plot) -> Html:
    rows = (
        tag("tr", tag("th", one.label, scope="row"), tag("td", one.text, class_="number"))
        for one in plot.bars
        if one.value
    )
    head = tag("tr", tag("th", "hour", scope="col"), tag("th", "charged", scope="col", class_="number"))
    table = tag("table", tag("thead", head), tag("tbody", *rows))
    return tag("details", tag("summary", "As a table"), table)
