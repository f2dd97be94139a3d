"""The rows of a result's vocabulary: how many, which are new, where each operand has them.

Without a union every operand has the base's tokens; only the padding behind the last token may
differ, and is kept as the base has it. With one, the result has the base's tokens and, behind
them, every token that an operand has beyond them; methods then run on an extended base unchanged
(`vocabulary_views`). Letters: V rows of the result's vocabulary, N rows, C columns.
"""

from __future__ import annotations

import filecmp
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from merger import tokenizer
from merger.checkpoint import Checkpoint
from merger.errors import InputError
from merger.tokenizer import Tokenizer
from schemas import vocabulary
from schemas.header import TensorInfo
from schemas.model import ModelError, read_config
from schemas.vocabulary import VocabularyError, VocabularyTensors

LACKS = -1
"""Place of a row that a model does not have."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The rows of a result: how many, which of them are new, and where each operand has them.

    `places` maps a term's index to a tensor (V,) of rows in its model, -1 where it lacks one; a
    term that is not in it has the base's rows, one to one. `files` are those of the tokenizer that
    are not the base's.
    """

    tensors: frozenset[str]
    base_rows: int
    rows: int
    added: range
    places: Mapping[int, torch.Tensor]
    files: Mapping[str, bytes] = field(default_factory=dict)

    def widened(self, tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
        """Return the tensors of a model with as many rows as the result."""
        return {
            name: replace(info, shape=(self.rows, *info.shape[1:]))
            if name in self.tensors
            else info
            for name, info in tensors.items()
        }


def agree(base: Checkpoint, models: Mapping[int, Checkpoint]) -> Vocabulary:
    """Return the base's vocabulary, which all models (by index of their term) have too.

    Raises InputError, the differing tokens named, where one has another.
    """
    count = vocabulary.rows(base.config) or 0
    places = {term: _padded(base, model) for term, model in models.items()}
    found = {term: place for term, place in places.items() if place is not None}
    tensors = _tensors(base).names if found else frozenset()
    return Vocabulary(tensors, count, count, range(0), found)


def _padded(base: Checkpoint, model: Checkpoint) -> torch.Tensor | None:
    """Return where a model of the same tokens has the base's rows, None if all are the same."""
    tokens = _same_tokens(base, model)
    expected, found = vocabulary.rows(base.config), vocabulary.rows(model.config)
    if expected == found:
        return None
    if tokens is None or expected is None or found is None:
        why = f"expected the base's vocabulary of {expected} rows, found {found}"
        unknown = "and no tokenizer that tells padding from tokens"
        raise InputError(f"{why}, {unknown}", term=model.label)
    _check_rows(model, _tensors(base), found)
    place = torch.arange(expected)
    place[_needed(tokens, base, expected, found) :] = LACKS
    return place


def _same_tokens(base: Checkpoint, model: Checkpoint) -> vocabulary.Tokens | None:
    """Return the tokens of both, None if not both tell them (or nobody needs to know)."""
    file = vocabulary.shared_file(model.folder, base.folder)
    if file is None:
        return None
    is_same = filecmp.cmp(model.folder / file, base.folder / file, shallow=False)
    if is_same and vocabulary.rows(base.config) == vocabulary.rows(model.config):
        return None  # the usual case: megabytes that need not be parsed
    try:
        theirs = vocabulary.read_tokens(base.folder, file) or {}
        mine = theirs if is_same else vocabulary.read_tokens(model.folder, file) or {}
    except ModelError as error:
        raise InputError(str(error), term=model.label) from error
    if words := vocabulary.difference(mine, theirs, model.label):
        raise InputError(f"expected the base's vocabulary: {words}", term=model.label)
    return theirs


def _needed(tokens: vocabulary.Tokens, base: Checkpoint, *counts: int) -> int:
    needed = vocabulary.last_row(tokens)
    if needed > min(counts):
        why = f"expected a row for each of the {needed} tokens, found {min(counts)} rows"
        raise InputError(why, term=base.label)
    return needed


def _tensors(base: Checkpoint) -> VocabularyTensors:
    shapes = {name: info.shape for name, info in base.tensors.items()}
    try:
        return vocabulary.vocabulary_tensors(shapes, base.config)
    except VocabularyError as error:
        raise InputError(error.why, tensor=error.tensor, term=base.label) from error


def _check_rows(model: Checkpoint, tensors: VocabularyTensors, count: int) -> None:
    for name in sorted(tensors.names & model.names):
        found = model.tensors[name].shape[0]
        if found != count:
            why = f"config.json states a vocabulary of {count} rows, found {found}"
            raise InputError(why, tensor=name, term=model.label)


def unite(base: Checkpoint, models: Mapping[int, Checkpoint]) -> Vocabulary:
    """Return the base's tokens with those that the models have beyond them, appended.

    In the order of the terms, then of a model's own ids; new ids start behind the base's last
    token, so padding is used first. Raises InputError where a vocabulary cannot be told.
    """
    own = tokenizer.read(base)
    if own is None:
        why = "a union of vocabularies needs the base's tokenizer.json, found none"
        raise InputError(why, field="recipe.tokenizer")
    tensors = _tensors(base)
    _needed(own.tokens, base, tensors.rows)
    union = tokenizer.Union(own)
    rows_of = {term: _united(union, model, tensors) for term, model in models.items()}
    added = range(union.start, union.stop)
    count = max(tensors.rows, added.stop)
    places = {
        term: place
        for term, rows in rows_of.items()
        if (place := _place(rows, added, tensors.rows, count)) is not None
    }
    files = tokenizer.extended(union, _settings(base)) if added else {}
    return Vocabulary(tensors.names, tensors.rows, count, added, places, files)


def _settings(base: Checkpoint) -> Mapping[str, Any]:
    if not (base.folder / tokenizer.SETTINGS).is_file():
        return {}
    try:
        return read_config(base.folder, tokenizer.SETTINGS)
    except ModelError as error:
        raise InputError(str(error), term=base.label) from error


def _united(
    union: tokenizer.Union, model: Checkpoint, tensors: VocabularyTensors
) -> dict[int, int] | None:
    """Return row in the result to row in a model, None if all of the base's rows are the same."""
    other, count = tokenizer.read(model), vocabulary.rows(model.config)
    is_same = other is None or other.tokens == union.base.tokens
    if is_same and count == tensors.rows:
        return None
    if other is None or count is None:
        why = f"expected the base's {tensors.rows} rows or a tokenizer, found {count} rows"
        raise InputError(why, term=model.label)
    _check_rows(model, tensors, count)
    _check_spelling(union.base, other, model.label)
    _needed(other.tokens, model, count)
    return union.add(other)


def _check_spelling(base: Tokenizer, other: Tokenizer, label: str) -> None:
    if base.spelling != other.spelling:
        why = f"expected pieces in the base's spelling ({base.spelling}), found {other.spelling}"
        raise InputError(why, term=label, field="recipe.tokenizer")


def _place(
    rows: Mapping[int, int] | None, added: range, base_rows: int, count: int
) -> torch.Tensor | None:
    if rows is None:
        if not added:
            return None
        place = torch.arange(count)
        place[base_rows:] = LACKS
        place[added.start : added.stop] = LACKS
        return place
    place = torch.full((count,), LACKS)
    place[torch.tensor(list(rows))] = torch.tensor(list(rows.values()))
    return place
