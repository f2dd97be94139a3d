"""Tables and pages that people read outside a terminal: Markdown, and HTML.

Pure text; whatever comes from a catalog is escaped here. A page that is a file needs no other file,
no script and no network.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
p{overflow-wrap:anywhere}
table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}
th,td{padding:.25rem .7rem;text-align:right;font-variant-numeric:tabular-nums}
th:first-child,td:first-child,td.text{text-align:left}
thead{border-bottom:2px solid}tr.main{font-weight:600}tr.beside{opacity:.7}
pre{padding:1rem;overflow-x:auto;border:1px solid}img{max-width:100%;background:#fff}
.wide{overflow-x:auto;margin:1rem 0}table.facts{display:table;margin:0}
table.facts th,table.facts td{text-align:left;vertical-align:top}
table.facts code{word-break:break-all}table.facts td:has(code){min-width:12rem}
table.facts td:last-child{overflow-wrap:anywhere;min-width:14rem}
table.facts span{white-space:nowrap}
caption{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
"""
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+.!|~-])")


def escaped(text: str) -> str:
    """Return text that Markdown shows as it stands: no markup, no link, no line break."""
    plain = " ".join(text.split())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = _SPECIAL.sub(r"\\\1", plain)
    # Addresses become links by themselves; what makes one recognisable is written as an entity.
    return plain.replace("://", "&#58;//").replace("@", "&#64;").replace("www", "ww&#119;")


def code_text(text: str) -> str:
    """Return text for a code span, in which nothing is markup but its end and a table's bar."""
    return " ".join(text.split()).replace("`", "'").replace("|", "/")


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [_markdown_row(head), "|" + "---|" * len(head)]
    return "\n".join([*lines, *map(_markdown_row, rows)])


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def html_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], classes: Sequence[str] = ()
) -> str:
    """Return a table in HTML; `classes` are those of its rows: main, beside, or nothing."""
    cells = "".join(f'<th scope="col">{escape(one)}</th>' for one in head)
    body = []
    for number, row in enumerate(rows):
        kind = classes[number] if number < len(classes) else ""
        mark = f' class="{kind}"' if kind else ""
        body.append(f"<tr{mark}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>")
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def html_pictures(pictures: Mapping[str, bytes]) -> list[str]:
    """Return the SVG files among some pictures as parts of a page."""
    found = []
    for name, data in pictures.items():
        if name.endswith(".svg"):
            source = f"data:image/svg+xml;base64,{base64.b64encode(data).decode()}"
            alternative = escape(name.removesuffix(".svg").replace("-", " "))
            found.append(f'<p><img alt="{alternative}" src="{source}"></p>')
    return found


def html_page(title: str, parts: Iterable[str]) -> str:
    """Return a page of parts that are HTML already."""
    return document(title, STYLE, f"<h1>{escape(title)}</h1>{''.join(parts)}")


def document(title: str, style: str, body: str, *, head: str = "") -> str:
    """Return a page with this body; `head` is what else its head has. Both are HTML already."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{style}</style>{head}</head>"
        f"<body>{body}</body></html>\n"
    )


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are HTML already; the first of each row is its heading.

    Where it is too wide, it alone scrolls. The caption is for screen readers: a heading is above.
    """
    heads = "".join(f'<th scope="col">{escape(one)}</th>' for one in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return _wide(
        "div",
        caption,
        f'<table class="facts"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>",
    )


def figure(name: str, svg: str) -> str:
    """Return a drawing as part of a page; where it is too wide, it alone scrolls."""
    return _wide("figure", name, svg)


def _wide(tag: str, name: str, inner: str) -> str:
    # What scrolls must be reached by keys, and what is reached must have a name.
    place = f'tabindex="0" role="region" aria-label="{escape(name)}"'
    return f'<{tag} class="wide" {place}>{inner}</{tag}>'


def linked(words: str, address: str | None) -> str:
    """Return words for a page, as a link where there is an address."""
    return f'<a href="{escape(address)}">{escape(words)}</a>' if address else escape(words)


def text(paragraph: str) -> str:
    """Return a paragraph of a page."""
    return f"<p>{escape(paragraph)}</p>"


def heading(title: str) -> str:
    """Return the heading of a section of a page."""
    return f"<h2>{escape(title)}</h2>"


def code(block: str) -> str:
    """Return text as it stands."""
    return f"<pre>{escape(block)}</pre>"
