"""A table that may be long: a form that filters it, and one part of its rows at a time. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeVar
from urllib.parse import urlencode

from registry import page
from registry.service.pages import words

ROWS = 200
"""Rows of one part of a table."""


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Filter:
    """What is shown: rows with all words of a text, in a state, and which part of those.

    `number` is that of the part, from 1.
    """

    text: str = ""
    state: str = ""
    number: int = 1

    @property
    def query(self) -> str:
        """The filter as the query of an address, without the part."""
        return urlencode([(k, v) for k, v in (("q", self.text), ("state", self.state)) if v])

    def finds(self, text: str) -> bool:
        """Return whether a text has all words that are looked for, in any case."""
        whole = text.casefold()
        return all(word in whole for word in self.text.casefold().split())


def form(chosen: Filter, address: str, name: str, asked: str, more: str = "") -> str:
    """Return the form; `asked` says what the text is looked for in, `more` is HTML already."""
    reset = f'<a href="{address}">Show all</a>' if chosen.query else ""
    return (
        f'<form action="{address}" method="get" role="search" aria-label="{escape(name)}">'
        f'<div class="field"><label for="q">{escape(asked)}</label>'
        f'<input id="q" name="q" type="search" maxlength="200" value="{escape(chosen.text)}"></div>'
        f'{more}<button type="submit">Show</button>{reset}</form>'
    )


def table(
    chosen: Filter,
    address: str,
    noun: str,
    head: Sequence[str],
    found: Sequence[_T],
    row: Callable[[_T], Sequence[str]],
    total: int,
) -> str:
    """Return one part of what was found of `total`, how much that is, and the way to the others.

    `noun` is what one row is, in the singular; `row` makes its cells, which are HTML already.
    """
    nouns = f"{noun}s"
    first = (chosen.number - 1) * ROWS
    rows = [row(one) for one in found[first : first + ROWS]]
    told = words.count(len(found), noun)
    if chosen.query:
        told = f"{told} of {total} match"
    if len(found) > ROWS:
        told += f"; {first + 1} to {first + len(rows)} are shown" if rows else ""
    shown = page.table(nouns.capitalize(), head, rows) if rows else ""
    return page.text(f"{told}.") + shown + _others(chosen, address, nouns, len(found))


def _others(chosen: Filter, address: str, nouns: str, found: int) -> str:
    last = -(-found // ROWS)
    if last < 2:
        return ""
    links = []
    for number, name in ((chosen.number - 1, "Previous"), (chosen.number + 1, "Next")):
        if 1 <= number <= last:
            query = f"{chosen.query}&page={number}" if chosen.query else f"page={number}"
            links.append(f'<li><a href="{escape(f"{address}?{query}")}">{name} {nouns}</a></li>')
    return f'<nav aria-label="More {nouns}"><ul>{"".join(links)}</ul></nav>'
