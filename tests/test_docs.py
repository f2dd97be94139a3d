"""The documentation against the code: tables that are made, numbers that are computed.

To make the tables anew:

    python -m tests.test_docs
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import schemas
from merger.methods import ties
from merger.selection import find_cut
from merger.sparsify import kept_count, trim
from tests import merging, tiny
from tests.conftest import Repository
from tests.merging import TermOf

PAGE = Path(__file__).parents[1] / "docs/methods.md"
CANDIDATES = Path(__file__).parents[1] / "docs/candidates.md"
LINEAGE = Path(__file__).parents[1] / "docs/lineage.md"
START, END = "<!-- made by `python -m tests.test_docs`", "<!-- end of what is made -->"


def table() -> str:
    """Return the table of methods, a row for each entry of the merge schema."""
    head = "| method | parameters (default; range) | result | source |\n|---|---|---|---|\n"
    return head + "".join(_row(name, entry) for name, entry in schemas.methods().items())


def _row(name: str, entry: Mapping[str, Any]) -> str:
    facts = [f"{parameter} ({_facts(one)})" for parameter, one in entry["properties"].items()]
    if entry["x-seed"]:
        facts.append("seed of the recipe (0)")
    if not entry["x-weights"]:
        facts.append("no weights")
    most = entry.get("x-terms-max")
    if entry["x-terms"] > 1:
        count = entry["x-terms"]
        facts.append(f"exactly {count} terms" if most == count else f"at least {count} terms")
    cells = f"`{name}`", ", ".join(facts) or "–", entry["x-formula"], entry["x-source"]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _facts(parameter: Mapping[str, Any]) -> str:
    default = parameter["default"]
    if "enum" in parameter:
        others = [value for value in parameter["enum"] if value != default]
        return f"{default}; or {', '.join(others)}"
    shown = str(default).lower() if isinstance(default, bool) else f"{default:g}"
    limits = parameter.get("x-range") or parameter
    left = "[" if "minimum" in limits else "("
    right = "]" if "maximum" in limits else ")"
    low = limits.get("minimum", limits.get("exclusiveMinimum"))
    high = limits.get("maximum", limits.get("exclusiveMaximum"))
    if low is None:
        return shown
    return f"{shown}; {left}{low:g}, {'∞' if high is None else f'{high:g}'}{right}"


def with_table(page: str) -> str:
    """Return the page with the table made anew."""
    before, rest = page.split(START)
    comment = rest.partition("\n")[0]
    after = rest.partition(END)[2]
    return f"{before}{START}{comment}\n{table()}{END}{after}"


def test_the_table_of_methods_is_that_of_the_schema() -> None:
    page = PAGE.read_text("utf-8")

    assert page == with_table(page), "make it anew: python -m tests.test_docs"


def worked_example() -> dict[str, list[str]]:
    """Return the rows of the worked example by their first cell."""
    section = PAGE.read_text("utf-8").partition("## TIES by hand")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:2] == "| "]
    return {row[0]: row[1:] for row in rows}


def numbers(cells: list[str]) -> torch.Tensor:
    return torch.tensor([float(cell) for cell in cells], dtype=torch.float64)


def test_every_step_of_the_worked_example_is_what_the_code_computes() -> None:
    rows = worked_example()
    taus = [numbers(rows["τ₁"]), numbers(rows["τ₂"])]
    keep = kept_count(0.4, 5)

    trimmed = [trim(t, find_cut([t], 5, keep), start=0) for t in taus]
    values = [trimmed[0], 0.5 * trimmed[1]]
    counted = ties.tally(values)
    elected = ties.elect(counted, "total")
    sign = ties.break_ties(elected, values, tie="positive", majority=0.0)
    merged = ties.merge(counted, sign, values, combine="mean", agreeing=0)

    assert keep == 2
    assert torch.equal(trimmed[0], numbers(rows["trim τ₁"]))
    assert torch.equal(trimmed[1], numbers(rows["trim τ₂"]))
    torch.testing.assert_close(values[1], numbers(rows["0.5 · trim τ₂"]))
    torch.testing.assert_close(values[0] + values[1], numbers(rows["sum"]))
    assert ["+" if one > 0 else "-" for one in sign.tolist()] == rows["elected sign"]
    agreeing = torch.where(sign > 0, counted.positives, counted.negatives)
    assert torch.equal(agreeing, numbers(rows["agreeing terms"]))
    torch.testing.assert_close(merged, numbers(rows["result"]))


def test_the_worked_example_is_what_a_build_writes(tmp_path: Path) -> None:
    rows = worked_example()
    name = "model.layers.0.mlp.up_proj.weight"
    base = _folder(tmp_path / "base", {name: np.zeros((1, 5), np.float32)})
    tiny.write_json(base / "config.json", {"model_type": "llama"})
    terms = [
        TermOf(_adapter(tmp_path / f"adapter{number}", numbers(rows[row])), weight)
        for number, (row, weight) in enumerate((("τ₁", 1.0), ("τ₂", 0.5)))
    ]

    merging.build(tmp_path / "out", base, terms, method="ties", density=0.4)

    built = tiny.read_tensors(tmp_path / "out")[name]
    np.testing.assert_allclose(built[0], numbers(rows["result"]).numpy(), rtol=1e-6)


def _adapter(folder: Path, tau: torch.Tensor) -> Path:
    prefix = "base_model.model.model.layers.0.mlp.up_proj"
    factors = {
        f"{prefix}.lora_A.weight": tau.numpy().astype(np.float32)[None],
        f"{prefix}.lora_B.weight": np.ones((1, 1), np.float32),
    }
    folder.mkdir()
    tiny.write_safetensors(folder / "adapter_model.safetensors", factors)
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "bias": "none"}
    tiny.write_json(folder / "adapter_config.json", config)
    return folder


def _folder(folder: Path, tensors: Mapping[str, Any]) -> Path:
    folder.mkdir()
    tiny.write_safetensors(folder / "model.safetensors", tensors)
    return folder


def test_the_example_of_candidates_prints_what_the_page_says(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = CANDIDATES.read_text("utf-8").partition("```python\n")[2]
    code, _, after = section.partition("```\n")
    shown = [line.strip() for line in after.partition("\n## ")[0].splitlines() if line]
    assert repository.run("sync", "trimmed").code == 0
    monkeypatch.chdir(repository.root)
    threads = torch.get_num_threads()

    exec(compile(code, "candidates.md", "exec"), {"__name__": "example"})
    torch.set_num_threads(threads)

    assert capsys.readouterr().out.splitlines() == shown


def test_the_example_of_lineage_prints_and_draws_what_the_page_shows(
    repository: Repository,
) -> None:
    blocks = indented(LINEAGE.read_text("utf-8"))
    spec = next(block for block in blocks if block.startswith("kind: merge"))
    (repository.root / "catalog/merges/polite.yaml").write_text(spec)

    shown = [block.partition("\n") for block in blocks if block.startswith("$ registry ")]
    told = [repository.run(*command.split()[2:]).out for command, _, _ in shown]
    drawn = repository.run("lineage", "polite", "--format", "svg").out

    assert told == [out for _, _, out in shown]
    assert len(told) == 2
    assert drawn == (LINEAGE.parent / "lineage.svg").read_text("utf-8")


def indented(page: str) -> list[str]:
    """Return the blocks of a page that are indented by four, without that."""
    blocks = [block for block in page.split("\n\n") if block.lstrip("\n").startswith("    ")]
    return ["".join(f"{line[4:]}\n" for line in block.strip("\n").splitlines()) for block in blocks]


def main() -> None:
    """Make the table anew."""
    PAGE.write_text(with_table(PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
