"""Tables and pages that people read outside a terminal: Markdown, and HTML that opens from disk.

Pure text; whatever comes from a catalog is escaped here. A page needs no other file, no script and
no network.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
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
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{''.join(parts)}</body></html>\n"
    )


def text(paragraph: str) -> str:
    """Return a paragraph of a page."""
    return f"<p>{escape(paragraph)}</p>"


def heading(title: str) -> str:
    """Return the heading of a section of a page."""
    return f"<h2>{escape(title)}</h2>"


def code(block: str) -> str:
    """Return text as it stands."""
    return f"<pre>{escape(block)}</pre>"
