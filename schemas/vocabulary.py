"""The tokens of a model folder, how two vocabularies differ, which tensors have a row for each.

From tokenizer.json, config.json and shapes alone; reads no tensor. A model may have more rows than
its tokenizer has tokens: the rows behind the last token are padding.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.model import ModelError, read_config
from schemas.schedule import is_embedding, layer_of

TOKENIZER = "tokenizer.json"
_FILES = (TOKENIZER, "vocab.json")
_MOST_JSON_BYTES = 256 << 20
# How many of many are named: enough to see the pattern, few enough to read.
_NAMED = 3
_SHOWN = 40

Tokens = Mapping[str, int]
Shapes = Mapping[str, tuple[int, ...]]


class VocabularyError(ValueError):
    """A model's vocabulary cannot be told from its files; `tensor` may be empty."""

    def __init__(self, why: str, tensor: str = "") -> None:
        """Say what is wrong, and with which tensor."""
        super().__init__(f"tensor {tensor}: {why}" if tensor else why)
        self.why = why
        self.tensor = tensor


def read_tokens(folder: Path, file: str = TOKENIZER) -> dict[str, int] | None:
    """Return the tokens of a tokenizer.json (or vocab.json) with their ids, None without the file.

    Raises ModelError if the file is no tokenizer.
    """
    data = read_tokenizer(folder, file)
    if data is None:
        return None
    try:
        return _tokens(data) if file == TOKENIZER else {str(t): int(n) for t, n in data.items()}
    except (TypeError, KeyError, AttributeError, IndexError, ValueError) as error:
        raise ModelError(file, "expected model.vocab and added_tokens", "model") from error


def read_tokenizer(folder: Path, file: str = TOKENIZER) -> dict[str, Any] | None:
    """Return a tokenizer's file as plain data, None without the file; raises ModelError."""
    path = folder / file
    if not path.is_file():
        return None
    if path.stat().st_size > _MOST_JSON_BYTES:
        raise ModelError(file, "expected at most 256 MiB")
    return read_config(folder, file)


def _tokens(data: Mapping[str, Any]) -> dict[str, int]:
    vocabulary = data["model"]["vocab"]
    if isinstance(vocabulary, list):  # Unigram: pairs of token and score, in the order of ids
        tokens = {str(token): number for number, (token, *_) in enumerate(vocabulary)}
    else:
        tokens = {str(token): int(number) for token, number in vocabulary.items()}
    for added in data.get("added_tokens") or ():
        tokens[str(added["content"])] = int(added["id"])
    return tokens


def shared_file(folder: Path, base: Path) -> str | None:
    """Return the first file that tells the tokens of both folders, None if there is none."""
    for file in _FILES:
        if (folder / file).is_file() and (base / file).is_file():
            return file
    return None


def last_row(tokens: Tokens) -> int:
    """Return how many rows the tokens need: the last id and one."""
    return 1 + max(tokens.values(), default=-1)


def difference(mine: Tokens, base: Tokens, here: str) -> str:
    """Return in words where two vocabularies differ; empty if they do not.

    `here` is what the text calls the first of them: `checkpoint math@1`. The first few tokens of
    every kind are named, in the order of their ids.
    """
    shared = mine.keys() & base.keys()
    moved = _by_id((t for t in shared if mine[t] != base[t]), mine)
    parts = [
        f"token {_quote(token)} is {mine[token]} here and {base[token]} in the base"
        for token in moved[:_NAMED]
    ]
    if len(moved) > _NAMED:
        parts.append(f"{len(moved) - _NAMED} more have other ids")
    parts += _only(mine, base.keys(), here)
    parts += _only(base, mine.keys(), "the base")
    return "; ".join(parts)


def _only(tokens: Tokens, others: Collection[str], where: str) -> list[str]:
    found = _by_id((token for token in tokens if token not in others), tokens)
    named = ", ".join(f"{_quote(token)} ({tokens[token]})" for token in found[:_NAMED])
    rest = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return [f"only in {where}: {named}{rest}"] if found else []


def _by_id(tokens: Iterable[str], ids: Tokens) -> list[str]:
    return sorted(tokens, key=lambda token: (ids[token], token))


def _quote(token: str) -> str:
    shown = token if len(token) <= _SHOWN else token[: _SHOWN - 1] + "…"
    quoted = json.dumps(shown, ensure_ascii=False)
    # A token may hold what a terminal would obey.
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in quoted)


def rows(config: Mapping[str, Any]) -> int | None:
    """Return the number of rows that a model's configuration states, None if it states none."""
    for place in (config, config.get("text_config")):
        if isinstance(place, Mapping) and type(place.get("vocab_size")) is int:
            return int(place["vocab_size"])
    return None


def with_rows(config: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return the fields of a configuration that state the number of rows, for another number."""
    if type(config.get("vocab_size")) is int:
        return {"vocab_size": count}
    return {"text_config": {**config["text_config"], "vocab_size": count}}


@dataclass(frozen=True, slots=True)
class VocabularyTensors:
    """Tensors with one row per token: input embeddings, output matrix and its bias if any."""

    names: frozenset[str]
    rows: int


def vocabulary_tensors(shapes: Shapes, config: Mapping[str, Any]) -> VocabularyTensors:
    """Return the tensors of a model whose first dimension is its vocabulary.

    No list of architectures: outside the layers, at most one matrix of embeddings and at most one
    other matrix have as many rows as the configuration states; a bias counts beside its matrix.
    Raises VocabularyError where names and shapes leave a doubt.
    """
    count = rows(config)
    if count is None:
        raise VocabularyError("config.json: expected vocab_size, found none")
    outside = {n: shape for n, shape in shapes.items() if layer_of(n) is None and count in shape}
    matrices = [n for n, shape in outside.items() if len(shape) == 2 and shape[0] == count]
    inputs = [name for name in sorted(matrices) if is_embedding(name)]
    outputs = [name for name in sorted(matrices) if not is_embedding(name)]
    biases = {name.removesuffix(".weight") + ".bias" for name in matrices}
    found = {*matrices, *(n for n in biases if outside.get(n) == (count,))}
    for doubtful in (inputs[1:], outputs[1:], sorted(outside.keys() - found)):
        if doubtful:
            why = f"has a dimension of vocab_size {count} beside {', '.join(sorted(found))}"
            raise VocabularyError(f"{why}: cannot tell which is the vocabulary", doubtful[0])
    if not inputs and not outputs:
        raise VocabularyError(f"expected embeddings of vocab_size {count} rows, found none")
    return VocabularyTensors(frozenset(found), count)
