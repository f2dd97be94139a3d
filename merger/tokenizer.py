"""Tokenizers as data: the union of vocabularies, and a tokenizer.json with more tokens.

The base's tokens keep their ids. What other tokenizers have beyond them is appended as added
tokens, whole pieces that are cut out of a text before the base's own rules: the merges of another
byte-pair encoding are not merged. Knows no tensor.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from merger.checkpoint import Checkpoint
from merger.errors import InputError
from schemas.model import ModelError
from schemas.vocabulary import last_row, read_tokenizer, read_tokens

_SPACE = "▁"
_PLAIN_ENTRY = {
    # Only where it is a whole word: inside words the base's own pieces go on as before.
    "single_word": True,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": False,
}


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """One tokenizer.json; `spelling` is how its pieces are written: byte-level, metaspace, plain.

    `added` are its added tokens by content: pieces that stand for their text as it is.
    """

    data: Mapping[str, Any]
    tokens: Mapping[str, int]
    added: Mapping[str, Mapping[str, Any]]
    spelling: str

    def entry(self, token: str) -> dict[str, Any]:
        """Return the added token, without id, that stands for a token of this tokenizer."""
        if token in self.added:
            return {key: value for key, value in self.added[token].items() if key != "id"}
        return {"content": _text(token, self.spelling), **_PLAIN_ENTRY}


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
    if any(part.get("type") == "Metaspace" or part.get("content") == _SPACE for part in parts):
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


def _text(piece: str, spelling: str) -> str:
    """Return the text that a piece stands for; the piece itself where it is no whole text.

    A byte-level decoder reads every character of an added token as a byte if it can: text that it
    would garble keeps the piece's spelling, is decoded right and never found in a text.
    """
    if spelling == "metaspace":
        return piece.replace(_SPACE, " ")
    if spelling == "plain":
        return piece
    letters = _bytes_of_letters()
    try:
        text = bytes(letters[letter] for letter in piece).decode()
    except (KeyError, UnicodeDecodeError):
        return piece
    is_garbled = not text.isascii() and all(character in letters for character in text)
    return piece if is_garbled else text


def _bytes_of_letters() -> dict[str, int]:
    # GPT-2's alphabet: printable bytes stand for themselves, the others for letters from U+0100.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


@dataclass(slots=True)
class Union:
    """The tokens of a result while operands are added to it, each in its turn."""

    base: Tokenizer
    start: int = field(init=False)
    entries: list[dict[str, Any]] = field(init=False, default_factory=list)
    _ids: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        """Start behind the base's last token."""
        self.start = last_row(self.base.tokens)
        self._ids = {content: self.base.tokens[content] for content in self.base.added}

    def add(self, other: Tokenizer) -> dict[int, int]:
        """Append what is missing, in the order of its ids; return id in the result to id there."""
        found: dict[int, int] = {}
        for token, row in sorted(other.tokens.items(), key=lambda item: (item[1], item[0])):
            number = self.base.tokens.get(token)
            if number is None:
                number = self._append(other.entry(token), token)
            if number is not None:
                found[number] = row
        return found

    def _append(self, entry: dict[str, Any], token: str) -> int | None:
        content = entry["content"]
        if content in self.base.tokens and content not in self.base.added:
            content = token  # the text is how the base spells another piece
        if not content:
            return None
        if content not in self._ids:
            number = self.start + len(self.entries)
            self._ids[content] = number
            self.entries.append({"id": number, **entry, "content": content})
        return self._ids[content]


def extended(base: Tokenizer, entries: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the base's tokenizer.json with these added tokens, appended.

    Raises InputError if the library `tokenizers` would give them other ids: it numbers added
    tokens itself and heeds no `id` in the file.
    """
    added = [*(base.data.get("added_tokens") or ()), *entries]
    given = _numbered(base.data["model"]["vocab"], [str(one["content"]) for one in added])
    for one in entries:
        if given[one["content"]] != one["id"]:
            why = "the base's tokenizer leaves ids out, so new tokens would not get theirs"
            raise InputError(why, field="recipe.tokenizer")
    data = {**base.data, "added_tokens": added}
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def _numbered(vocabulary: Any, contents: Sequence[str]) -> dict[str, int]:
    is_list = isinstance(vocabulary, list)
    known = {t: n for n, (t, *_) in enumerate(vocabulary)} if is_list else vocabulary
    size = len(vocabulary)
    given: dict[str, int] = {}
    top = -1
    for content in contents:
        following = top + 1 if top >= size or size == 0 else size
        number = given.get(content, known.get(content, following))
        given[content] = number
        top = max(top, number)
    return given
