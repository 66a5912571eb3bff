"""The pieces of a self-contained HTML page: its frame and style, tables, pictures put in line."""

import base64
import html
import re
from collections.abc import Iterable, Sequence

from jaxssl.report import plots

_STYLE = """
:root { color-scheme: light dark; --bg: #fbfbfa; --card: #ffffff; --ink: #22252a; --soft: #666c75;
  --line: #e1e3e6; --good: #1a7f4b; --bad: #c03535; --mixed: #9a6700; --accent: #2f7ed8; }
@media (prefers-color-scheme: dark) { :root { --bg: #14161a; --card: #1c1f25; --ink: #e4e6ea;
  --soft: #9aa1ac; --line: #31353d; --good: #4cc38a; --bad: #ff7b72; --mixed: #e3b341;
  --accent: #6cb0ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 28px 24px 60px; background: var(--bg);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 26px; margin: 0; }
h2 { font-size: 18px; margin: 36px 0 10px; padding-bottom: 4px;
  border-bottom: 1px solid var(--line); }
h3 { font-size: 13px; margin: 18px 0 6px; color: var(--soft); text-transform: uppercase;
  letter-spacing: .05em; }
p { margin: 6px 0 12px; }
.soft { color: var(--soft); font-size: 13.5px; }
.good { color: var(--good); } .bad { color: var(--bad); } .mixed { color: var(--mixed); }
.verdict { font-size: 17px; font-weight: 600; border-left: 4px solid currentColor;
  padding: 4px 12px; margin: 14px 0; }
.facts { display: flex; flex-wrap: wrap; gap: 10px; margin: 14px 0; }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 8px 14px; }
.facts b { display: block; font-size: 17px; } .facts span { color: var(--soft); font-size: 12.5px; }
.scroll { overflow-x: auto; margin-bottom: 12px; }
table { border-collapse: collapse; background: var(--card); font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: 6px 14px; text-align: left;
  vertical-align: top; }
th { font-size: 12.5px; color: var(--soft); font-weight: 600; }
td.num, th.num { text-align: right; white-space: nowrap; }
.charts { display: flex; flex-wrap: wrap; gap: 12px; align-items: flex-start; }
.charts figure, .near { background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; }
figure { margin: 0; padding: 8px; }
figure svg { display: block; max-width: 100%; height: auto; }
.near { border-spacing: 0; }
.near td { padding: 6px; text-align: center; font-size: 12px; vertical-align: middle; }
.near td:first-child { padding-right: 22px; border-right: 2px solid var(--line); }
.near img { display: block; width: 64px; height: 64px; object-fit: contain; margin: 0 auto 2px;
  border: 3px solid transparent; border-radius: 4px; image-rendering: pixelated; }
.near .bad img { border-color: var(--bad); }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px;
  overflow-x: auto; font-size: 12.5px; }
code { font-size: 13px; overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--accent); }
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole page around its sections; nothing in it points outside the file."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def text(x: object) -> str:
    """`x` with the characters that mean something in HTML escaped."""
    return html.escape(str(x))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """A table of ready HTML cells; the first `words` columns stand to the left, numbers right."""

    def row(tag: str, cells: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=num' if i >= words else ''}>{cell}</{tag}>"
            for i, cell in enumerate(cells)
        )

    body = "\n".join(f"<tr>{row('td', cells)}</tr>" for cells in rows)
    return f'<div class="scroll"><table>\n<tr>{row("th", head)}</tr>\n{body}\n</table></div>'


def drawing(svg: bytes) -> str:
    """An SVG as part of the page, so that its text and axes take the page's colour."""
    inner = svg.decode("utf-8")
    inner = inner[inner.index("<svg") :]
    inner = re.sub(r"<metadata>.*?</metadata>", "", inner, flags=re.DOTALL)
    # HTML's parser knows the namespaces; without them the page names no address at all.
    inner = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", inner)
    return f"<figure>{inner.replace(plots.INK, 'currentColor')}</figure>"


def picture(png: bytes, alt: str) -> str:
    """A PNG put in line."""
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{text(alt)}" src="data:image/png;base64,{data}">'
