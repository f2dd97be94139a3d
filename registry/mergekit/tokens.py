"""Whose tokens a merge has: mergekit's tokenizer settings in `recipe.tokenizer`.

With a union both give a model that lacks a token the base's row, else the row of the only model
that has it, else the mean of those that have it. They differ in the order of the new rows, and in
the rows behind the last token, which mergekit leaves out wherever a tokenizer is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.documents import Path_
from registry.mergekit.merge import Merge, Recipe
from registry.mergekit.sparse import DEFAULTS as SPARSE

_BY_ELEMENT = ("linear", "task_arithmetic", "dare_linear", "dare_ties", "passthrough")
_REFUSED = {
    "tokens": (
        "no recipe here says where the row of a token comes from",
        "a new token has the mean of the rows of the models that have it",
    ),
    "pad_to_multiple_of": (
        "no recipe here pads the vocabulary",
        "the base's padding is kept and used first",
    ),
}


def translate(merge: Merge, recipe: Recipe | None) -> bool:
    """Return whether the vocabulary is a union; problems where no recipe has that vocabulary."""
    findings, data = merge.findings, merge.config.data
    given = data.get("tokenizer")
    is_given = isinstance(given, dict)
    settings: Mapping[str, Any] = given if isinstance(given, dict) else {}
    key: Path_ = ("tokenizer",) if is_given else ("tokenizer_source",)
    source = settings.get("source", "union") if is_given else data.get("tokenizer_source")
    for name, (message, hint) in _REFUSED.items():
        if settings.get(name):
            findings.problem((*key, name), message, hint)
    if source is not None:
        place = (*key, "source") if "source" in settings else key
        check = _check_union if source == "union" else _check_base
        check(merge, place, source)
        if recipe is not None:
            _check_padding(merge, recipe, place)
    if data.get("chat_template") is not None:
        findings.note("chat_template is not carried over: it is the base's, and no weight")
    return bool(source == "union")


def _check_base(merge: Merge, place: Path_, source: Any) -> None:
    base = merge.config.base
    if source == "base" or (base and source == base.text):
        merge.findings.note(
            "the tokenizer is the base's, and every operand must have its vocabulary"
        )
        return
    shown = source if isinstance(source, str) else "a mapping"
    hint = "write tokenizer_source: base if all models have the base's vocabulary"
    merge.findings.problem(place, f"expected base or union, found {shown}", hint)


def _check_union(merge: Merge, place: Path_, _source: Any) -> None:
    config = merge.config
    if config.method == "passthrough":
        hint = "write tokenizer_source: base if all models have the base's vocabulary"
        merge.findings.problem(place, "passthrough copies rows, and takes no union", hint)
        return
    if not any(
        merge.is_catalog_base(one) and one.reference == config.base for one in config.inputs
    ):
        message = "expected base_model, a base of the catalog, among the models of a union"
        hint = "without it mergekit fills a missing row from other models, not from the base"
        merge.findings.problem(place, message, hint)
        return
    merge.findings.note(
        "rows of new tokens stand in another order: here model by model, in mergekit all pieces "
        "before all added tokens"
    )


def _check_padding(merge: Merge, recipe: Recipe, place: Path_) -> None:
    """Refuse padding where a method counts or measures whole tensors: it would count it too."""
    rows = merge.padding
    if rows == 0:
        return
    is_whole = recipe.method in SPARSE and recipe.parameters.get("density") == 1.0
    if recipe.method in _BY_ELEMENT or is_whole:
        merge.findings.note(
            "mergekit leaves out rows behind the last token of the tokenizer; they are kept here"
        )
    elif rows is None:
        merge.findings.note(
            "mergekit leaves out rows behind the last token of the tokenizer: the base, whose "
            "weights are not at hand, is taken to have none"
        )
    else:
        message = f"the base has {rows} rows behind its last token, which mergekit leaves out"
        cure = "without the setting mergekit keeps them, as here"
        hint = f"{recipe.method} looks at whole tensors; {cure}"
        merge.findings.problem(place, message, hint)
