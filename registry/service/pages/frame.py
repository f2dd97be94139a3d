"""What every page has around it: style, skip link, navigation; times, badges, lists of facts. Pure.

No colour is the only signal, what is focused is outlined, and only what is wider than a phone
scrolls sideways, by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from registry import page
from registry.service.pages import words

SCRIPT = "/static/live.js"

_STYLE = """
:root{--ink:#1a1a1a;--paper:#fff;--soft:#f3f5f7;--rule:#aab3bb;--link:#0b5c8c;--muted:#555;
--bad:#b00020;--warn:#8a4b00;--good:#1b6e3a}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8e8;--paper:#121212;--soft:#1e2327;
--rule:#56616b;--link:#7cc4f5;--muted:#b5b5b5;--bad:#ff9a9a;--warn:#ffb86b;--good:#7fd79a}}
*{box-sizing:border-box}
body{color:var(--ink);background:var(--paper);margin:0 auto;max-width:80rem;overflow-wrap:anywhere}
a{color:var(--link)}
:focus-visible{outline:3px solid var(--link);outline-offset:2px}
.skip{position:absolute;left:-100vw}.skip:focus{position:static;display:inline-block;padding:.5rem}
header{display:flex;flex-wrap:wrap;gap:.25rem 1.5rem;align-items:baseline;padding:.75rem 0;
border-bottom:1px solid var(--rule)}
header p,header ul{margin:0;padding:0}nav ul{display:flex;gap:1.25rem;list-style:none}
nav a{display:inline-block;padding:.35rem 0}
nav a[aria-current]{font-weight:600;color:var(--ink)}
footer{border-top:1px solid var(--rule);margin-top:2rem;color:var(--muted)}
h1{font-size:1.6rem;line-height:1.25;margin:1.25rem 0 .5rem}h2{font-size:1.2rem;margin:2rem 0 .5rem}
h3{font-size:1rem;margin:1.25rem 0 .25rem}main:focus{outline:none}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.muted{color:var(--muted)}code,pre{font-family:ui-monospace,Menlo,Consolas,monospace;font-size:.9em}
pre{background:var(--soft);border:1px solid var(--rule);white-space:pre-wrap;max-height:32rem;
overflow:auto}
.expression{display:block;background:var(--soft);padding:.6rem .8rem;border-left:4px solid
var(--link);font-size:1rem}
table.facts{width:100%;border-collapse:collapse}
table.facts th,table.facts td{padding:.4rem .7rem .4rem 0;border-bottom:1px solid var(--rule)}
table.facts thead th{border-bottom:2px solid var(--rule);white-space:nowrap}
table.facts tbody th{font-weight:600;min-width:8rem}
table.facts td:last-child{min-width:7rem}table.facts td:has(code){min-width:14rem}
table.facts tbody th:has(code){min-width:12rem}
table.facts td{min-width:5.5rem}table.facts code{word-break:normal;overflow-wrap:anywhere}
table.facts td:has(.long){min-width:16rem}table.facts .long{white-space:normal}
time{white-space:nowrap}
.state{white-space:nowrap;font-weight:600}.failed,.revoked{color:var(--bad)}
.due,.blocked,.suspended,.later,.running{color:var(--warn)}.up-to-date,.done{color:var(--good)}
.notice{border:2px solid var(--warn);border-left-width:8px;padding:.5rem 1rem;margin:1rem 0}
.notice.bad{border-color:var(--bad)}.notice.calm{border-color:var(--link)}
.notice h2,.notice p{margin:.3rem 0}
dl.facts{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1rem;margin:.75rem 0}
dl.facts dt{color:var(--muted)}dl.facts dd{margin:0;min-width:0}
form{display:flex;flex-wrap:wrap;gap:.75rem 1rem;align-items:end;margin:1rem 0}
label{display:block}input,select,button{font:inherit;color:inherit;background:var(--paper);
border:1px solid var(--muted);border-radius:4px;padding:.4rem .6rem;max-width:100%;
min-height:2.4rem}
select{width:100%}.field{min-width:min(14rem,100%)}button{background:var(--soft);cursor:pointer}
ul.counts{display:flex;flex-wrap:wrap;gap:.4rem 1.25rem;list-style:none;padding:0;margin:.5rem 0}
progress{width:min(24rem,100%);height:1rem;accent-color:var(--link);vertical-align:middle}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(26rem,100%),1fr));gap:1rem}
.plots figure{margin:0}.plots img{width:100%;aspect-ratio:16/9;object-fit:contain;
border:1px solid var(--rule)}
figure.wide{margin:1rem 0;border:1px solid var(--rule)}
@media(max-width:40rem){dl.facts{grid-template-columns:1fr;gap:0}dl.facts dd{margin-bottom:.5rem}}
@media(prefers-reduced-motion:reduce){*{animation:none!important;transition:none!important}}
@media(forced-colors:active){.notice,.expression{border-color:CanvasText}}
"""


@dataclass(frozen=True, slots=True)
class Site:
    """What all pages of a service name: what it follows."""

    repository: str
    branch: str


def whole(
    site: Site, title: str, parts: Iterable[str], *, section: str = "", live: str = ""
) -> str:
    """Return a page of parts that are HTML already, under a heading of the first order.

    `section` is the address of the part of the site, `live` that of what changes on the page: a
    page that has elements with `data-part` and an id, each as it is now.
    """
    refresh = f' data-live="{escape(live)}"' if live else ""
    where = f"{site.repository}, branch {site.branch}"
    body = (
        '<a class="skip" href="#main">Skip to the content</a>'
        f'<header><nav aria-label="Pages"><ul>{_menu(section)}</ul></nav>'
        f'<p class="muted">{escape(where)}</p></header>'
        f'<main id="main" tabindex="-1"{refresh}><h1>{escape(title)}</h1>{"".join(parts)}</main>'
        f'<footer><p>merge-registry. The same as data: <a href="/api/v1/openapi.json">API</a>.'
        " Times are UTC.</p></footer>"
    )
    script = f'<script src="{SCRIPT}" defer></script>' if live else ""
    head = f'<link rel="icon" href="data:,">{script}'
    return page.document(f"{title} · {site.repository}", page.STYLE + _STYLE, body, head=head)


def _menu(section: str) -> str:
    entries = (("/", "Models"), ("/ingredients", "Ingredients"), ("/jobs", "Jobs"))
    current = {section: ' aria-current="page"'}
    return "".join(
        f'<li><a href="{address}"{current.get(address, "")}>{name}</a></li>'
        for address, name in entries
    )


def part(name: str, content: str, *, is_status: bool = False) -> str:
    """Return a part of a page that changes while one looks; a status is read out when it does."""
    role = ' role="status" aria-live="polite"' if is_status else ""
    return f'<div id="{escape(name)}" data-part{role}>{content}</div>'


def error(site: Site, title: str, hint: str) -> str:
    """Return a page that says what is wrong and what to do."""
    told = page.text(words.sentence(hint)) if hint else ""
    home = '<p><a href="/">All models</a></p>'
    return whole(site, words.sentence(title).rstrip("."), [told, home])


def time(seconds: float | None) -> str:
    """Return a moment as people and programs read it."""
    if seconds is None:
        return "–"
    moment = datetime.fromtimestamp(seconds, UTC)
    machine = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    return f'<time datetime="{machine}">{moment.strftime("%Y-%m-%d %H:%M")}</time>'


def state(name: str) -> str:
    """Return a state as a badge: a sign, the word, and colour for those who see it."""
    sign = words.STATES.get(name, ("•", ""))[0]
    return (
        f'<span class="state {escape(name)}"><span aria-hidden="true">{escape(sign)}</span> '
        f"{escape(name)}</span>"
    )


def outcome(name: str, word: str = "") -> str:
    """Return what became of an attempt, a job or a gate as a badge; `word` stands for the name."""
    marks = {"done": "✓", "running": "…", "later": "↻", "interrupted": "↻"}
    kind = name if name in marks else "failed"
    sign = f'<span aria-hidden="true">{marks.get(name, "✗")}</span>'
    return f'<span class="state {kind}">{sign} {escape(word or name)}</span>'


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Return names with what they stand for, HTML already, as a list; empty ones are left out."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in pairs if value)
    return f'<dl class="facts">{rows}</dl>' if rows else ""


def notice(title: str, content: str, kind: str = "") -> str:
    """Return what must not be overlooked, under a heading; `kind` is bad, calm, or between."""
    return f'<div class="notice {kind}"><h2>{escape(title)}</h2>{content}</div>'


def code(text: str) -> str:
    """Return text as code, nothing for none."""
    return f"<code>{escape(text)}</code>" if text else ""


def commit(identity: str) -> str:
    """Return a commit as code, short."""
    return f'<code title="{escape(identity)}">{escape(identity[:12])}</code>' if identity else ""


def long(text: str) -> str:
    """Return text that needs room in a table."""
    return f'<span class="long">{escape(text)}</span>'
