"""Commands for whoever audits: audit, history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry import chain, lock, observation, report, tracking_place
from registry.chain import Chain, Entry
from registry.cli.acting import open_world
from registry.cli.names import MODEL
from registry.cli.session import FORMATS, find_root, open_session
from registry.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from registry.differences import Difference

_SHOWN_CHARACTERS = 80
"""Of each value in a line; `--format json` has the whole."""
_MOST_SECONDS = 3600.0
"""Of waiting for MLflow in all: an audit asks some questions about each model."""


@click.command()
@click.option("--fix", is_flag=True, help="Set right what can be without losing anything.")
@click.option("--deep", is_flag=True, help="Read every stored byte, not only sizes.")
@click.option("--format", "form", type=FORMATS, default="text")
@click.option("--lock-timeout", type=click.FloatRange(0), default=60.0, show_default=True)
@click.pass_obj
def audit(directory: Path, form: str, lock_timeout: float, *, fix: bool, deep: bool) -> int:
    """Compare MLflow, store, pointers and journal with what Git records; name every difference."""
    from registry import audit as auditing
    from registry import verification
    from registry.tracking import Tracker

    session = open_session(directory)
    uri = tracking_place.default_uri(session.root)
    experiment = session.loaded.catalog.settings.experiment
    tracker = Tracker(uri, experiment, deadline_seconds=_MOST_SECONDS)
    repaired: list[Difference] = []
    with open_world(session, None) as world:
        stored = auditing.verify(world, deep=deep)
        if fix:
            with lock.held(observation.state_folder(session.root) / "lock", lock_timeout):
                found, repaired = auditing.repair(world, tracker, stored)
                verification.remember(session.root, stored)
                if found.wanted is not None:
                    tracking_place.remember_store(session.root, uri, tracker.store_id())
        else:
            found = auditing.find(world, tracker, stored)
    if form == "json":
        rows = {
            "differences": [one.as_data() for one in found.differences],
            "repaired": [one.as_data() for one in repaired],
            "unfinished": list(found.journal.unfinished),
        }
        click.echo(report.as_json(rows))
    else:
        _tell(found.differences, repaired, found.journal, fixed=fix)
    return 1 if found.differences else 0


def _tell(
    differences: Sequence[Difference],
    repaired: Sequence[Difference],
    journal: Chain,
    *,
    fixed: bool,
) -> None:
    for line in report.table([_row("repaired", one) for one in repaired]):
        click.echo(line)
    word = "left" if fixed else "differs"
    for line in report.table([_row(word, one) for one in differences]):
        click.echo(line)
    for place in journal.unfinished:
        click.echo(f"{place}: half a line, which a killed sync left; it counts as not written")
    entries = len(journal.entries)
    looked = f"{entries} journal entr{'y' if entries == 1 else 'ies'} read"
    count = len(differences)
    if fixed:
        click.echo(f"{len(repaired)} repaired, {count} left, {looked}")
    else:
        fixable = sum(one.cure is not None for one in differences)
        can = f" ({fixable} of them audit --fix can repair)" if count else ""
        click.echo(f"{count} difference{'' if count == 1 else 's'}{can}, {looked}")


def _row(word: str, one: Difference) -> tuple[str, ...]:
    told = f"expected {_shown(one.expected)}, found {_shown(one.found)}"
    told += f" ({one.advice})" if one.advice else ""
    return (word, _shown(one.model), _shown(one.where), _shown(one.field), told)


def _shown(text: str) -> str:
    """Return hostile text on one line, and not without end."""
    return chain.plain(text, _SHOWN_CHARACTERS)


@click.command()
@click.argument("model", required=False, type=MODEL)
@click.option("--on", "date", metavar="DATE", help="What was live then: 2026-03-01[T12:00[Z]].")
@click.option("--format", "form", type=FORMATS, default="text")
@click.pass_obj
def history(directory: Path, model: str | None, date: str | None, form: str) -> int:
    """Show what syncs did to a model, or what was live on a date, as the journal tells it."""
    found = chain.read(find_root(directory))
    known = {one.model for one in found.entries}
    if model is not None and model not in known:
        msg = f"the journal has no entry of {model}"
        raise UsageError(msg, did_you_mean(model, known))
    entries = list(found.entries)
    if model is not None:
        entries = chain.of_model(entries, model)
    if date is not None:
        end = _end_of(date)
        live = chain.live(one for one in entries if one.time <= end)
        entries = [live[name] for name in sorted(live)]
    if form == "json":
        rows = {"entries": [one.as_data() for one in entries], "flaws": len(found.flaws)}
        click.echo(report.as_json(rows))
    else:
        for line in report.table(_lines(entries, is_state=date is not None)):
            click.echo(line)
        count = len(entries)
        noun = "model" if date else "entr"
        ending = (
            {"model": "s live", "entr": "ies"} if count != 1 else {"model": " live", "entr": "y"}
        )
        click.echo(f"{count} {noun}{ending[noun]}{f' at {_end_of(date)}' if date else ''}")
    for flaw in found.flaws:
        click.echo(
            f"{flaw.place}: {flaw.field}: not as it was written; see registry audit", err=True
        )
    return 1 if found.flaws else 0


def _lines(entries: Sequence[Entry], *, is_state: bool) -> Iterator[tuple[str, ...]]:
    for one in entries:
        did = ("live since",) if is_state else (one.action, one.result)
        state = (report.short(one.model_digest), one.commit[:12] or "-", one.who)
        if is_state:
            yield (one.model, *did, one.time, *state)
        else:
            yield (one.time, one.model, *did, *state, one.reason)


def _end_of(date: str) -> str:
    """Return the last second that a date or a time means, in UTC, as entries have it."""
    try:
        moment = datetime.fromisoformat(date)
    except ValueError:
        msg = f"expected a date like 2026-03-01 or 2026-03-01T12:00Z, found {date}"
        raise UsageError(msg) from None
    if len(date) <= len("2026-03-01"):
        moment += timedelta(days=1, seconds=-1)
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
