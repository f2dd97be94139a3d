"""Tokenizers as data: the union of vocabularies, and a tokenizer.json with more tokens.

The base's tokens keep their ids; what other tokenizers have beyond them is appended. Their added
tokens (markers, special tokens) stay added tokens: cut out of a text before anything else. Their
pieces are appended to the base's pieces without the merges that made them, which are not merged:
they are decoded and may be generated, and a text is still cut as the base cuts it. Knows no tensor.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from merger.checkpoint import Checkpoint
from merger.errors import InputError
from schemas.model import ModelError
from schemas.vocabulary import TOKENIZER, last_row, read_tokenizer, read_tokens

SETTINGS = "tokenizer_config.json"
_FIELD = "recipe.tokenizer"


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """One tokenizer.json; `spelling` says how pieces are written: byte-level, metaspace, plain."""

    data: Mapping[str, Any]
    tokens: Mapping[str, int]
    added: Mapping[str, Mapping[str, Any]]
    spelling: str


def read(model: Checkpoint) -> Tokenizer | None:
    """Return the tokenizer of a model's folder, None if it has no tokenizer.json."""
    try:
        tokens = read_tokens(model.folder)
        data = read_tokenizer(model.folder)
    except ModelError as error:
        raise InputError(str(error), term=model.label) from error
    if tokens is None or data is None:
        return None
    added = {str(one["content"]): one for one in data.get("added_tokens") or ()}
    return Tokenizer(data, tokens, added, _spelling(data))


def _spelling(data: Mapping[str, Any]) -> str:
    parts = [*_parts(data.get("pre_tokenizer")), *_parts(data.get("decoder"))]
    if any(part.get("type") == "ByteLevel" for part in parts):
        return "byte-level"
    parts += _parts(data.get("normalizer"))
    if any(part.get("type") == "Metaspace" or part.get("content") == "▁" for part in parts):
        return "metaspace"
    return "plain"


def _parts(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
        for inner in value.values():
            yield from _parts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _parts(inner)


@dataclass(slots=True)
class Union:
    """The tokens of a result while operands are added to it, each in its turn.

    `added` are the entries of tokenizer.json for new added tokens, `pieces` new pieces by id.
    """

    base: Tokenizer
    start: int = field(init=False)
    ids: dict[str, int] = field(init=False)
    added: list[dict[str, Any]] = field(init=False, default_factory=list)
    pieces: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Start behind the base's last token."""
        self.start = last_row(self.base.tokens)
        self.ids = dict(self.base.tokens)

    @property
    def stop(self) -> int:
        """The id behind the last token."""
        return self.start + len(self.added) + len(self.pieces)

    def add(self, other: Tokenizer) -> dict[int, int]:
        """Append what is missing, in the order of its ids; return id in the result to id there."""
        for token, _ in sorted(other.tokens.items(), key=lambda item: (item[1], item[0])):
            if token in self.ids:
                continue
            self.ids[token] = number = self.stop
            if token in other.added:
                self.added.append({**other.added[token], "id": number})
            else:
                self.pieces[token] = number
        return {self.ids[token]: row for token, row in other.tokens.items()}


def extended(union: Union, settings: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files of the base's tokenizer that differ with the tokens of a union.

    tokenizer.json, and tokenizer_config.json (its data are `settings`) if that lists added tokens:
    transformers then believes it and not the other. Raises InputError where the format of
    tokenizer.json has no place for the tokens.
    """
    files = {TOKENIZER: _json(_with_tokens(union))}
    if listed := settings.get("added_tokens_decoder"):
        new = {str(one["id"]): {k: v for k, v in one.items() if k != "id"} for one in union.added}
        files[SETTINGS] = _json({**settings, "added_tokens_decoder": {**listed, **new}})
    return files


def _json(data: Any) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def _with_tokens(union: Union) -> dict[str, Any]:
    data = union.base.data
    added = [*(data.get("added_tokens") or ()), *union.added]
    pieces = data["model"]["vocab"]
    if union.pieces or not _are_numbered_so(pieces, added):
        if not isinstance(pieces, dict):
            what = next(iter(union.pieces), union.added[0]["content"] if union.added else "")
            why = f"the base's tokenizer has no place for {what!r}: its pieces are a scored list"
            raise InputError(why, field=_FIELD)
        # A token that stands among the pieces too has the id that it has there.
        pieces = pieces | {str(one["content"]): one["id"] for one in added} | union.pieces
    return {**data, "added_tokens": added, "model": {**data["model"], "vocab": pieces}}


def _are_numbered_so(pieces: Any, added: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether `tokenizers` gives the added tokens these ids: it heeds no `id` in the file.

    A token that is no piece gets the number of pieces, or the one behind the last added token.
    """
    is_list = isinstance(pieces, list)
    known = {piece: number for number, (piece, *_) in enumerate(pieces)} if is_list else pieces
    top = -1
    for one in added:
        following = top + 1 if top >= len(pieces) else len(pieces)
        number = known.get(one["content"], following)
        if number != one["id"]:
            return False
        top = max(top, number)
    return True
