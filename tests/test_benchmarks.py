"""The benchmarks' own arithmetic: medians, goals, the table, the page, the cost of a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import floor, goals, measure, merges, page, plots, table
from benchmarks.goals import Cost, Row
from benchmarks.measure import CommandFailed, Sample, spread
from benchmarks.models import Shape, make, shape_of
from benchmarks.session import ROOT, Results, Session, read_results
from merger import request


def sample(cpu: float, wall: float = 0.0, peak: int = 0, **told: float) -> Sample:
    return Sample(cpu, wall, peak, 0, told)


def cost_of(cpu: float, wall: float) -> Cost:
    return goals.cost([sample(cpu, wall)])


def results(folder: Path, **facts: Any) -> Results:
    return Results(folder / "results.json", {"size": "1.1B", **facts})


def test_a_spread_is_the_median_between_the_least_and_the_largest() -> None:
    found = spread([3.0, 1.0, 2.0, 9.0, 2.5])

    assert (found.median, found.least, found.largest, found.count) == (2.5, 1.0, 9.0, 5)
    assert table.with_spread(found) == "2.50 (1.00–9.00)"
    assert table.with_spread(spread([120.4])) == "120"


def test_a_share_of_a_peer_is_met_only_by_both_clocks() -> None:
    ours = cost_of(10, 5)

    assert goals.share_of("mergekit", 12, ours, cost_of(120, 60)).is_met
    assert not goals.share_of("mergekit", 12, ours, cost_of(120, 59)).is_met
    assert not goals.share_of("mergekit", 12, ours, cost_of(119, 60)).is_met


def test_a_merge_is_held_against_the_floor_without_the_import_of_torch() -> None:
    start, floor_cost = cost_of(2, 1), cost_of(4, 4)

    met = goals.floor_check(cost_of(10, 9), start, floor_cost)
    missed = goals.floor_check(cost_of(10.1, 9), start, floor_cost)

    assert (met.found, met.is_met) == ("2.00 × CPU, 2.00 × wall", True)
    assert not missed.is_met


def test_the_table_shows_a_row_beside_its_peer_and_counts_the_goals() -> None:
    checks = (goals.at_most(2, 1.5, "CPU s"), goals.at_most(1, 1.2, "s"))
    rows = [Row("merge", cost_of(1.5, 1.2), "mergekit", cost_of(30, 20), checks)]

    shown = table.text(rows).splitlines()
    written = table.markdown(rows).splitlines()

    assert " ".join(shown[1].split()) == (
        "merge 1.50 1.20 0 mergekit 30.0 20.0 0 ≤ 2 CPU s 1.5 CPU s met"
    )
    assert " ".join(shown[2].split()) == "≤ 1 s 1.2 s MISSED"
    assert shown[-1] == "1 of 2 goals met"
    assert written[2] == (
        "| merge | 1.50 | 1.20 | 0 | mergekit | 30.0 | 20.0 | 0 | ≤ 2 CPU s | 1.5 CPU s | met |"
    )
    assert len({line.count("|") for line in written}) == 1


def test_what_was_not_measured_has_no_row_and_what_was_has_its_goals(tmp_path: Path) -> None:
    known = results(tmp_path)
    assert goals.rows(known) == []

    known.add("sync/1000", sample(0.3))
    known.add("dvc/1000", sample(9.3))
    known.add("plan/10000", sample(1.01))
    known.add("review/10000", sample(1.3))
    known.add("validate/10000", sample(12.0, 11.9))
    checks = {row.title: row.checks for row in goals.rows(known)}

    assert [check.is_met for check in checks["sync with nothing to do, 1,000 models"]] == [
        True,
        True,
    ]
    assert not checks["plan after one edit, 10,000 models"][0].is_met
    assert checks["plan --against of one edit in a fresh clone, 10,000 models"][0].is_met
    assert checks["cold validate, 10,000 models"][0].found == "1.19 ms wall per spec"


def test_memory_is_flat_if_no_number_of_layers_takes_a_tenth_more(tmp_path: Path) -> None:
    known = results(tmp_path)
    for key, peak in (("0.31B", 600), ("0.48B", 640), ("1.1B", 659)):
        known.add(f"merge/{key}/ties/ours", sample(1, 1, peak * 10**6))
    (found,) = [row for row in goals.rows(known) if row.title.endswith("by layers")]

    assert found.checks[0].is_met
    assert found.checks[0].found == "600 MB at 4, 640 MB at 8, 659 MB at 22"


def test_samples_survive_an_interruption_and_only_what_lacks_is_measured(tmp_path: Path) -> None:
    made = iter(range(10))

    def once() -> Sample:
        return sample(next(made), 61.0)

    before = results(tmp_path)
    before.add("ours", sample(7.0, 1.0, 5, rate=0.5))
    after = read_results(before.path)
    session = Session(tmp_path, shape_of("0.1B"), 3, False, True, after)
    session.measure("ours", once)
    session.measure_peer("slow", once)

    assert [one.cpu_seconds for one in after.of("ours")] == [7.0, 0, 1]
    assert after.of("ours")[0] == before.of("ours")[0]
    assert [one.cpu_seconds for one in after.of("slow")] == [2]


def test_a_process_is_charged_for_its_own_memory_and_not_for_a_mapped_file(tmp_path: Path) -> None:
    size = 64 << 20
    file = tmp_path / "mapped"
    file.write_bytes(bytes(size))
    read = (
        f"import mmap; f = open('{file}', 'rb');"
        " m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ); sum(m[::4096])"
    )

    held, _ = measure.run([sys.executable, "-c", wait(f"x = b'1' * {size}")], cwd=tmp_path)
    mapped, _ = measure.run([sys.executable, "-c", wait(read)], cwd=tmp_path)

    assert held.peak_bytes > size > 2 * mapped.peak_bytes
    with pytest.raises(CommandFailed, match="ended with 3"):
        measure.run([sys.executable, "-c", "raise SystemExit(3)"], cwd=tmp_path)


def wait(code: str) -> str:
    return f"{code}; import time; time.sleep(0.3)"


def test_the_floor_writes_the_first_input_and_reads_them_all(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.write_bytes(b"a" * 3_000_000)
    second.write_bytes(b"b" * 1000)

    told = floor.copy([first, second], tmp_path / "out")

    assert (tmp_path / "out").read_bytes() == first.read_bytes()
    assert (told["read_bytes"], told["written_bytes"]) == (3_001_000, 3_000_000)


def test_models_come_in_the_sizes_asked_for() -> None:
    assert shape_of("1.1B") == Shape(22)
    assert shape_of("350M") == Shape(5)
    assert abs(shape_of("0.1B").parameters - 1e8) < 2e5
    with pytest.raises(ValueError, match="found 7B"):
        shape_of("7B")


def test_models_are_made_once_and_every_method_has_a_request(tmp_path: Path) -> None:
    make(tmp_path, Shape(1, 64), fine_tunes=1, adapters=1)
    made = merges.made_inputs(tmp_path)
    stamp = (tmp_path / "ft1" / "model.safetensors").stat().st_mtime_ns
    make(tmp_path, Shape(1, 64), fine_tunes=1, adapters=1)

    assert (tmp_path / "ft1" / "model.safetensors").stat().st_mtime_ns == stamp
    for case in merges.every_method():
        names = {name: "ad1" if name.startswith("ad") else "ft1" for name in case.terms}
        known = {"base": "base", **names}
        inputs = merges.Inputs(
            {name: made.folders[one] for name, one in known.items()},
            {name: made.digests[one] for name, one in known.items()},
        )
        request.parse(merges.request_of(inputs, case))


def test_the_page_is_made_anew_between_its_marks_only(tmp_path: Path) -> None:
    facts = dict.fromkeys(page.FACTS, "x")
    known = Results(tmp_path / "results.json", {**facts, "size": "1.1B"})
    known.add("sync/100", sample(0.2))
    before = "# Mine\n<!-- made by make bench: results -->\nold\n<!-- end -->\nafter\n"

    after = page.with_results(before, known)

    assert after.startswith("# Mine\n<!-- made by make bench: results -->\n| what |")
    assert after.endswith("| met |\n\n1 of 1 goals met.\n<!-- end -->\nafter\n")
    assert page.with_results(after, known) == after
    assert b"sync, nothing to do" in plots.draw(known)["benchmarks-specs.svg"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--report", "--output", "no-results.json"), "no-results.json"),
        (("--runs", "0"), "--runs: expected a whole number from 1, found 0"),
    ],
)
def test_what_cannot_be_measured_or_shown_is_said_in_a_line(
    asked: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "benchmarks", *asked]
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )

    assert ran.returncode == 2
    assert said in ran.stderr.splitlines()[-1]
