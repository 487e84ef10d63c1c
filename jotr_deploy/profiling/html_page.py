"""Page in one file: no script, font, picture or external address."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

# Okabe and Ito's colours, distinguishable by the colour-blind, darker on white and lighter on black where too faint.
_LIGHT = ("#0072b2", "#d55e00", "#00825f", "#b5538b", "#b07a00", "#3a8fc2", "#444444", "#7a6a00")
_DARK = ("#56a8e0", "#ff8a4a", "#2fc79a", "#e79cc4", "#f0b840", "#9fd4f5", "#d0d0d0", "#f0e442")
_INK = {
    "light": {"ink": "#1c1e21", "soft": "#5b6168", "line": "#dfe2e6", "card": "#ffffff", "back": "#f4f5f7"},
    "dark": {"ink": "#e8eaed", "soft": "#a7adb5", "line": "#363b42", "card": "#1d2025", "back": "#131518"},
}

_STYLE = """
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1240px;margin:0 auto;padding:24px 20px 48px}
h1{font-size:24px;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:18px;margin:36px 0 10px}
h3{font-size:14px;margin:0 0 8px;font-weight:600}
p{margin:6px 0;max-width:100ch}
.soft,figcaption,dt{color:var(--soft);font-size:13px}
.said{max-width:none;border-left:4px solid var(--c4);background:var(--card);padding:8px 12px;margin:8px 0}
.warning{border-color:var(--c1);font-weight:600}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 14px;margin:14px 0}
dd{margin:0;font-size:13px;overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:16px}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:14px 16px}
.chart{display:block;width:100%;max-width:680px;height:auto;margin:0 auto}
svg text{fill:var(--soft);font-size:13px}
svg .strong{fill:var(--ink)}
.grid{stroke:var(--line);stroke-width:1}
polyline{fill:none;stroke:currentColor;stroke-width:2.2}
rect,circle,polygon{fill:currentColor}
.track{fill:var(--line);opacity:.55}
.part{stroke:var(--card);stroke-width:1}
.hollow{fill:var(--card);stroke:currentColor;stroke-width:1.8}
.whisker{fill:none;stroke:currentColor;stroke-width:2}
.legend{display:flex;flex-wrap:wrap;gap:4px 20px;margin:0 0 12px;padding:0;list-style:none;font-size:13px}
.sample{vertical-align:-2px;margin-right:6px}
.wide{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:8px;margin:0 0 16px}
table{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:5px 12px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:600}
tr:last-child td{border-bottom:0}
.word{text-align:left}
"""


def page(title: str, body: Iterable[str]) -> str:
    """Complete page; `body` is HTML, `title` is text."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{_variables()}{_STYLE}</style></head>\n"
        f"<body><main>\n{chr(10).join(body)}\n</main></body></html>\n"
    )


def _variables() -> str:
    themes = []
    for colours, ink in ((_LIGHT, _INK["light"]), (_DARK, _INK["dark"])):
        values = {**ink, **{f"c{index}": colour for index, colour in enumerate(colours)}}
        themes.append(":root{" + ";".join(f"--{name}:{value}" for name, value in values.items()) + "}")
    uses = "".join(f".c{index}{{color:var(--c{index})}}" for index in range(len(_LIGHT)))
    return f"{themes[0]}@media (prefers-color-scheme:dark){{{themes[1]}}}{uses}"


def card(title: str, chart: str, caption: str = "") -> str:
    """Card with a title, a chart (HTML) and a caption (text)."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure><h3>{escape(title)}</h3>{chart}{below}</figure>"


def cards(each: Sequence[str]) -> str:
    """Cards side by side if there is room."""
    return f'<div class="cards">{"".join(each)}</div>'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], words: Sequence[str]) -> str:
    """Table of text; columns named in `words` are left-aligned. It scrolls on a narrow page."""

    def cells(tag: str, values: Sequence[str]) -> str:
        kinds = [' class="word"' if column in words else "" for column in columns]
        return "".join(f"<{tag}{kind}>{escape(value)}</{tag}>" for kind, value in zip(kinds, values, strict=True))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{cells("th", columns)}</tr></thead><tbody>{body}</tbody></table></div>'
