"""Charts as SVG text. Series differ in dashes or marks as well as in colour; colours are variables of the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

STYLES = 8
"""Number of colours, dashes and marks; a ninth series looks like the first."""
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "5 5", "12 4", "1 4", "14 3 3 3")
_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 14, 44
_MARK = 4.5


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    name: str
    style: int
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Axis:
    """A scale from `low` to `high`, both included."""

    label: str
    low: float
    high: float
    log: bool = False
    ticks: tuple[float, ...] = ()

    @classmethod
    def over(cls, label: str, values: Iterable[float]) -> Axis:
        """Axis from 0 past the largest value; logarithmic where the largest is over ten times the smallest."""
        found = [value for value in values if value > 0] or [1.0]
        low, high = min(found), max(found)
        if high > 10 * low:
            low, high = low / 1.3, high * 1.3
            return cls(f"{label}, log scale", low, high, True, tuple(_log_ticks(low, high)))
        return cls(label, 0.0, high * 1.06, False, tuple(_ticks(high * 1.06)))

    def at(self, value: float) -> float:
        """Position of a value: 0 at `low`, 1 at `high`."""
        if self.log:
            value = max(value, self.low / 10)
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart."""

    name: str
    detail: str  # shown beside the name
    text: str  # the figure
    style: int
    value: float
    whisker: float | None = None  # a thin line from the value to here


@dataclass(frozen=True)
class Part:
    """One stage of a frame."""

    name: str
    text: str
    style: int
    value: float


def _ticks(high: float) -> Iterable[float]:
    """At most six round numbers from 0."""
    power = 10.0 ** math.floor(math.log10(high / 5))
    step = next(step * power for step in (1, 2, 5, 10) if high / (step * power) <= 5)
    return (round(index * step, 10) for index in range(int(high / step) + 1))


def _log_ticks(low: float, high: float) -> Iterable[float]:
    """1, 2 and 5 of every decade in between; only 1 where that is many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [figure * 10.0**power for power in decades for figure in (1, 2, 5)]
    inside = [tick for tick in found if low <= tick <= high]
    return inside if len(inside) <= 8 else inside[:: math.ceil(len(inside) / 8)]


def line_chart(title: str, series: Sequence[Series], x: Axis, y: Axis, marks: bool) -> str:
    """Line chart over a grid, clipped to the axes. `marks` draws a mark on every point."""
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def px(value: float) -> float:
        return round(_LEFT + width * x.at(value), 1)

    def py(value: float) -> float:
        return round(_TOP + height * (1 - y.at(value)), 1)

    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{py(tick)}" y2="{py(tick)}"/>'
        f'<text x="{_LEFT - 7}" y="{py(tick) + 4}" text-anchor="end">{tick:g}</text>'
        for tick in y.ticks
    ]
    parts += [
        f'<line class="grid" x1="{px(tick)}" x2="{px(tick)}" y1="{_TOP}" y2="{_TOP + height}"/>'
        f'<text x="{px(tick)}" y="{_TOP + height + 17}" text-anchor="middle">{tick:g}</text>'
        for tick in x.ticks
    ]
    middle = _TOP + height / 2
    parts.append(f'<text x="{_LEFT + width / 2}" y="{_HEIGHT - 7}" text-anchor="middle">{escape(x.label)}</text>')
    parts.append(
        f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">{escape(y.label)}</text>'
    )
    # A viewport of its own cuts lines off, with room for half a mark at its edges.
    parts.append(
        f'<svg x="{_LEFT - 6}" y="{_TOP - 6}" width="{width + 12}" height="{height + 12}" '
        f'viewBox="{_LEFT - 6} {_TOP - 6} {width + 12} {height + 12}">'
    )
    for one in series:
        points = " ".join(f"{px(at)},{py(value)}" for at, value in one.points)
        parts.append(f'<g class="c{one.style % STYLES}"><title>{escape(one.name)}</title>')
        parts.append(f'<polyline points="{points}" stroke-dasharray="{_DASHES[one.style % STYLES]}"/>')
        for at, value in one.points if marks else ():
            said = f"{one.name}: {value:g} at {at:g}"
            parts.append(f"<g><title>{escape(said)}</title>{_mark(one.style, px(at), py(value))}</g>")
        parts.append("</g>")
    return _svg(title, _HEIGHT, [*parts, "</svg>"])


def sample(style: int) -> str:
    """A short line of this style, for a legend."""
    line = f'<polyline points="1,7 43,7" stroke-dasharray="{_DASHES[style % STYLES]}"/>{_mark(style, 22, 7)}'
    return (
        '<svg class="sample" width="44" height="14" viewBox="0 0 44 14" aria-hidden="true">'
        f'<g class="c{style % STYLES}">{line}</g></svg>'
    )


def _mark(style: int, x: float, y: float) -> str:
    """Circle, square, triangle, diamond, and again without filling."""
    r, hollow = _MARK, ' class="hollow"' if style % STYLES >= STYLES // 2 else ""
    shape = style % (STYLES // 2)
    if shape == 0:
        return f'<circle cx="{x}" cy="{y}" r="{r}"{hollow}/>'
    corners = {
        1: ((-r, -r), (r, -r), (r, r), (-r, r)),
        2: ((0, -r - 1), (r + 1, r), (-r - 1, r)),
        3: ((0, -r - 1), (r + 1, 0), (0, r + 1), (-r - 1, 0)),
    }[shape]
    return f'<polygon points="{" ".join(f"{x + dx:g},{y + dy:g}" for dx, dy in corners)}"{hollow}/>'


def bar_chart(title: str, bars: Sequence[Bar]) -> str:
    """Bar chart with one bar a row, from 0, under its name and figure."""
    most, parts = max((max(bar.value, bar.whisker or 0) for bar in bars), default=1) or 1, []
    for row, bar in enumerate(bars):
        y, scale = 6 + 42 * row, _WIDTH / most * 0.995
        end = round(bar.value * scale, 1)
        parts.append(
            f'<g class="c{bar.style % STYLES}"><title>{escape(f"{bar.name}: {bar.text}")}</title>'
            f'<text x="0" y="{y + 12}"><tspan class="strong">{escape(bar.name)}</tspan>'
            f'<tspan dx="8">{escape(bar.detail)}</tspan></text>'
            f'<text class="strong" x="{_WIDTH}" y="{y + 12}" text-anchor="end">{escape(bar.text)}</text>'
            f'<rect x="0" y="{y + 19}" width="{_WIDTH}" height="12" class="track"/>'
            f'<rect x="0" y="{y + 19}" width="{max(end, 1)}" height="12"/>'
        )
        if bar.whisker is not None:
            far = round(bar.whisker * scale, 1)
            parts.append(f'<path class="whisker" d="M{end} {y + 25}H{far}M{far} {y + 20}v10"/>')
        parts.append("</g>")
    return _svg(title, 6 + 42 * len(bars), parts)


def stacked_chart(title: str, stages: Sequence[Part]) -> str:
    """Stacked bar of all parts, and below it a row for each at its position in that bar."""
    name_px, text_px = 90, 130
    whole = sum(part.value for part in stages) or 1
    wide, narrow = _WIDTH / whole, (_WIDTH - name_px - text_px) / whole
    parts, before = [], 0.0
    for row, part in enumerate(stages):
        y = 48 + 28 * row
        parts.append(
            f'<g class="c{part.style % STYLES}"><title>{escape(f"{part.name}: {part.text}")}</title>'
            f'<rect class="part" x="{before * wide:.1f}" y="4" width="{max(part.value * wide, 0.5):.1f}" height="26"/>'
            f'<text class="strong" x="0" y="{y + 13}">{escape(part.name)}</text>'
            f'<rect x="{name_px}" y="{y + 2}" width="{_WIDTH - name_px - text_px}" height="14" class="track"/>'
            f'<rect x="{name_px + before * narrow:.1f}" y="{y + 2}" width="{max(part.value * narrow, 1):.1f}" '
            f'height="14"/><text x="{_WIDTH}" y="{y + 13}" text-anchor="end">{escape(part.text)}</text></g>'
        )
        before += part.value
    return _svg(title, 48 + 28 * len(stages), parts)


def _svg(title: str, height: int, parts: Iterable[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )
