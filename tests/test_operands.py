"""Names on the command line: what they mean, and what is told where they mean nothing."""

from __future__ import annotations

import pytest

from registry import operands
from registry.errors import UsageError
from registry.spec import Catalog, Ingredient, MergeSpec, Settings
from registry.spec import Term as RecipeTerm


def catalog() -> Catalog:
    ids = [
        ("base", "llama", None),
        ("adapter", "sql", 1),
        ("adapter", "json", 1),
        ("adapter", "json", 2),
        ("adapter", "both", 1),
        ("checkpoint", "both", 1),
        ("checkpoint", "office", 1),
    ]
    ingredients = {
        (kind, name, version): Ingredient(kind, name, version, "llama", "sha256:", "")
        for kind, name, version in ids
    }
    term = RecipeTerm("adapter", "sql", 1, 1.0, {})
    merge = MergeSpec("office", "llama", "linear", {}, (term,), 0, "float32", {})
    return Catalog(Settings("mine"), ingredients, {"office": merge}, {})


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["sql"], [("adapter", "sql", 1)]),
        (["sql@1", "json@2"], [("adapter", "sql", 1), ("adapter", "json", 2)]),
        (["adapter sql@1"], [("adapter", "sql", 1)]),
        (["checkpoint", "both", "sql"], [("checkpoint", "both", 1), ("adapter", "sql", 1)]),
        (["merge", "office"], [("merge", "office", None)]),
        (["office@1"], [("checkpoint", "office", 1)]),
    ],
)
def test_names_are_found(words: list[str], found: list[object]) -> None:
    assert list(operands.find(words, catalog())) == found


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["sgl"], "no merge, adapter or checkpoint sgl", "did you mean sql"),
        (["checkpoint", "sql"], "no checkpoint sql", ""),
        (["llama"], "no merge, adapter or checkpoint llama", ""),
        (["json"], "json may be adapter json@1 or adapter json@2", "name one of them"),
        (["both"], "both may be adapter both@1 or checkpoint both@1", "name one of them"),
        (["office"], "office may be checkpoint office@1 or merge office", "name one of them"),
        (["sql@2"], "no sql@2, but adapter sql@1", ""),
        (["adapter"], "expected a name after adapter", ""),
        (["sql", "sql@1"], "adapter sql@1 is named twice", ""),
    ],
)
def test_what_cannot_be_meant_is_told(words: list[str], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        operands.find(words, catalog())

    assert (raised.value.message, raised.value.hint) == (message, hint)
