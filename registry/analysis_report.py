"""An analysis as text: what the terms are to each other, and what a merge leaves of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from registry.charts import short_names
from registry.report import table, weight_text


def text(answer: Mapping[str, Any]) -> str:
    """Return an analysis as lines: terms, pairs, parts of the model, the sum at the end."""
    figures = answer["figures"]
    names = short_names(figures["terms"])
    total = figures["total"]
    blocks = [[_head(answer, names), *_indented(_terms(answer, names))]]
    if len(names) > 1:
        blocks.append(_indented(_matrix("cosine", names, total["cosines"])))
        blocks.append(_indented(_matrix("same sign", names, total["sign_agreement"])))
    blocks.append(_indented(_parts(figures, names)))
    if total["result"]:
        blocks.append(_indented(_survival(figures, names)))
    return "\n\n".join("\n".join(block) for block in blocks) + "\n\n" + _sum(figures)


def _head(answer: Mapping[str, Any], names: Sequence[str]) -> str:
    if answer["model"]:
        return f"{answer['model']} = {answer['expression']}"
    return f"{', '.join(names)} on {answer['base']}"


def _indented(lines: Iterator[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _terms(answer: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    total = answer["figures"]["total"]
    result = total["result"]
    head = ["term", "tensors", "elements", "norm", "nonzero"]
    if result:
        head = ["term", "weight", *head[1:], "survives", "signs kept"]
    rows = []
    for number, (name, term) in enumerate(zip(names, total["terms"], strict=True)):
        row = [
            name,
            str(term["tensors"]),
            _count(term["elements"]),
            f"{term['norm']:.4g}",
            _percent(term["nonzero"]),
        ]
        if result:
            row.insert(1, weight_text(answer["operands"][number]["weight"]))
            row += [_percent(result[key][number]) for key in ("survival", "signs_kept")]
        rows.append(row)
    return table(rows, head=head)


def _matrix(
    title: str, names: Sequence[str], values: Sequence[Sequence[float | None]]
) -> Iterator[str]:
    rows = [
        [name, *("-" if value is None else f"{value:.3f}" for value in row)]
        for name, row in zip(names, values, strict=True)
    ]
    return table(rows, head=[title, *names])


def _parts(figures: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    head = ["norm", *names]
    has_pairs = len(names) > 1
    if has_pairs:
        head += ["sign conflict", "DARE expected"]
    if has_masks := figures["total"]["dare"]["realised"] is not None:
        head.append("DARE realised")
    rows = []
    for part in figures["parts"]:
        row = [part["part"]]
        row += [f"{term['norm']:.4g}" if term["tensors"] else "-" for term in part["terms"]]
        if has_pairs:
            row += [_percent(part["sign_conflict"]), _percent(part["dare"]["expected"])]
        if has_masks:
            row.append(_percent(part["dare"]["realised"]))
        rows.append(row)
    return table(rows, head=head)


def _survival(figures: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    rows = [
        [part["part"], *(_percent(share) for share in part["result"]["survival"])]
        for part in figures["parts"]
    ]
    return table(rows, head=["survives", *names])


def _sum(figures: Mapping[str, Any]) -> str:
    total = figures["total"]
    count = len(figures["terms"])
    noun = "term" if count == 1 else "terms"
    line = f"{count} {noun}, {total['tensors']} tensors"
    if count == 1:
        return line
    line += f"; signs conflict at {_percent(total['sign_conflict'])} of the elements"
    dare = total["dare"]
    if dare["realised"] is not None:
        expected, realised = _percent(dare["expected"]), _percent(dare["realised"])
        return f"{line}, after the drop {realised} (expected {expected})"
    kept = f"{figures['density']:.6g}"
    left = _percent(dare["expected"])
    return f"{line}, {left} expected after a random drop to density {kept}"


def _count(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e6 else str(number)


def _percent(share: float | None) -> str:
    if share is None:
        return "-"
    return f"{100 * share:.3g} %"
