"""Every figure that the docs state, in one run: `make bench`.

The table goes to standard output, progress to standard error, samples to `.bench/results.json` as
they come. Run from the root of the repository on a quiet machine with Linux, two cores or more,
8 GB of memory and, at 1.1B, 25 GB of free disk; it takes about an hour.
"""

from __future__ import annotations

import argparse
import fcntl
import subprocess
import sys
from pathlib import Path

from benchmarks import goals, page, parts, table
from benchmarks.measure import CommandFailed
from benchmarks.models import shape_of
from benchmarks.session import ROOT, Refused, Results, Session, facts, read_results, say

FOLDER = ROOT / ".bench"
_TROUBLE = (Refused, CommandFailed, subprocess.CalledProcessError, ValueError, OSError)


def main() -> int:
    """Measure, print the table; return 1 if a goal was missed, 2 if it cannot be run, or 130."""
    given = _parser().parse_args()
    names = given.parts.split(",")
    if given.runs < 1:
        _parser().error(f"--runs: expected a whole number from 1, found {given.runs}")
    unknown = set(names) - {*parts.PARTS, "peers"}
    if unknown:
        _parser().error(f"--parts: expected {', '.join((*parts.PARTS, 'peers'))}")
    try:
        results = _measured(given, names)
    except _TROUBLE as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"benchmarks: interrupted; --resume goes on from {given.output}", file=sys.stderr)
        return 130
    rows = goals.rows(results)
    print(table.text(rows))
    if given.write_docs:
        page.write(ROOT / "docs", results)
    return 1 if any(check.is_met is False for row in rows for check in row.checks) else 0


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("benchmarks", description=__doc__, formatter_class=raw)
    every = ",".join((*parts.PARTS, "peers"))
    parser.add_argument("--parts", default=every, help=f"some of {every}; default: all")
    parser.add_argument("--size", default="1.1B", help="of the random model, 0.05B … 1.1B")
    parser.add_argument("--runs", type=int, default=5, help="of each; peers over a minute run once")
    parser.add_argument("--quick", action="store_true", help="0.05B, one run, few points")
    parser.add_argument("--output", type=Path, default=FOLDER / "results.json")
    parser.add_argument("--resume", action="store_true", help="keep what --output already holds")
    parser.add_argument("--report", action="store_true", help="measure nothing: show --output")
    parser.add_argument("--write-docs", action="store_true", help="docs/benchmarks.md and plots")
    return parser


def _measured(given: argparse.Namespace, names: list[str]) -> Results:
    size = "0.05B" if given.quick else given.size
    FOLDER.mkdir(exist_ok=True)
    if given.report:
        return read_results(given.output)
    results = Results(given.output, facts(size))
    if given.resume and given.output.exists():
        before = read_results(given.output)
        if before.facts | {"date": ""} != results.facts | {"date": ""}:
            raise Refused(
                f"{given.output}: expected results of this commit, size and machine;"
                " leave out --resume"
            )
        results = before
    session = Session(
        folder=FOLDER,
        shape=shape_of(size),
        runs=1 if given.quick else given.runs,
        is_quick=given.quick,
        has_peers="peers" in names,
        results=results,
    )
    with (FOLDER / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(f"{FOLDER}: another run is under way") from error
        parts.run(session, [name for name in parts.PARTS if name in names])
    say(f"samples in {given.output}")
    return results


if __name__ == "__main__":
    sys.exit(main())
