"""Our numbers are those of the other implementations, to the tolerance that docs/conformance.md states.

`python -m tests.test_conformance` writes that page anew; here it is only held to be true.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

import schemas
from tests.conformance import LIKE, UNLIKE, Row, tool
from tests.conformance_builds import difference
from tests.reference import inputs

PAGE = Path(__file__).parents[1] / "docs/conformance.md"
INTRODUCTION = """\
# Conformance: the same recipe in other tools

Written by `python -m tests.test_conformance`; the test of that name holds every figure to be true.

One base and three models of three small float32 tensors (task vectors in (-1, 1)) were merged by
other implementations, and their results kept with the scripts that made them
(`tests/reference/make_*.py`); passthrough stacks Llama models of three layers. The last column but
one is the largest absolute difference of an element where this page was written: a rounding error,
which another CPU makes differently. The last is what the test allows everywhere. A method that draws
at random got our masks in place of its own draw (`masks.json`), so that everything else is compared.

What a dialect means, and what no parameter expresses, is in [dialects.md](dialects.md).
"""
UNLIKE_INTRODUCTION = """\
## Not reproduced, and why

The nearest recipe of ours beside what the tool does; the difference shows that it matters.
"""


@pytest.mark.parametrize("row", LIKE, ids=lambda row: f"{row.oracle}: {row.case}")
def test_the_result_is_that_of_the_other_tool(row: Row, tmp_path: Path) -> None:
    found = difference(row, tmp_path)

    assert found <= row.tolerance
    assert float(shown(LIKE)[key(row)]) <= row.tolerance


@pytest.mark.parametrize("row", UNLIKE, ids=lambda row: f"{row.oracle}: {row.case}")
def test_what_is_not_reproduced_differs_as_the_page_says(row: Row, tmp_path: Path) -> None:
    found = difference(row, tmp_path)

    # Two digits, so that nobody takes a rounding error for a different meaning.
    assert f"{found:.1e}" == shown(UNLIKE)[key(row)]
    assert found > 1e-2


def test_the_page_has_these_rows_and_tolerances() -> None:
    found = {key(row): shown(LIKE)[key(row)] for row in LIKE}
    measured = {key(row): shown(UNLIKE)[key(row)] for row in UNLIKE}

    assert page(found, measured) == PAGE.read_text("utf-8")


def test_every_method_and_dialect_has_a_row() -> None:
    rows = [*LIKE, *UNLIKE]

    assert {row.dialect for row in rows} >= set(schemas.dialects())
    # No other implementation is at hand.
    left = set(schemas.methods()) - {row.method for row in rows}
    assert left == {"consensus", "knots"}
    for row in LIKE:
        if row.dialect:
            assert row.tolerance <= schemas.dialects()[row.dialect]["tolerance"]


def test_no_two_magnitudes_of_a_task_vector_are_equal() -> None:
    base = inputs.base()
    for model in inputs.models():
        taus = np.concatenate([(model[name] - base[name]).ravel() for name in base])
        assert len(np.unique(np.abs(taus))) == taus.size


def key(row: Row) -> tuple[str, ...]:
    return (tool(row.oracle), row.case, row.method, row.written)


def shown(rows: Iterable[Row]) -> dict[tuple[str, ...], str]:
    """Return the differences that the page states, by row."""
    wanted = {key(row) for row in rows}
    found = {}
    for line in PAGE.read_text("utf-8").splitlines():
        cells = tuple(re.split(r" \| ", line.strip("| ")))
        if len(cells) == 6 and cells[:4] in wanted:
            found[cells[:4]] = cells[4]
    return found


def page(like: dict[tuple[str, ...], str], unlike: dict[tuple[str, ...], str]) -> str:
    return "\n".join(_lines(like, unlike)) + "\n"


def _lines(like: dict[tuple[str, ...], str], unlike: dict[tuple[str, ...], str]) -> Iterator[str]:
    yield INTRODUCTION
    yield "| tool | its case | method here | parameters here | maximum error | tolerance |"
    yield "|---|---|---|---|---|---|"
    for row in LIKE:
        yield f"| {' | '.join(key(row))} | {like[key(row)]} | {row.tolerance:.0e} |"
    yield ""
    yield UNLIKE_INTRODUCTION
    yield "| tool | its case | method here | parameters here | difference | why |"
    yield "|---|---|---|---|---|---|"
    for row in UNLIKE:
        yield f"| {' | '.join(key(row))} | {unlike[key(row)]} | {row.why} |"


def main() -> None:
    """Measure every row and write the page."""
    with tempfile.TemporaryDirectory() as folder:
        found = {
            key(row): difference(row, Path(folder) / str(number))
            for number, row in enumerate([*LIKE, *UNLIKE])
        }
    like = {key(row): f"{found[key(row)]:.1e}" if found[key(row)] else "0" for row in LIKE}
    unlike = {key(row): f"{found[key(row)]:.1e}" for row in UNLIKE}
    PAGE.write_text(page(like, unlike), "utf-8")


if __name__ == "__main__":
    main()
