"""Whether a checkpoint has its base's vocabulary: from tokenizers, configurations and headers.

Padding of another height is no other vocabulary, where the tokenizers tell that it is padding.
"""

from __future__ import annotations

import filecmp
from pathlib import Path

from registry.finding import Finding
from schemas import model, vocabulary
from schemas.header import HeaderError
from schemas.model import ModelError, ModelHeader
from schemas.vocabulary import TOKENIZER, VocabularyError

_TRAIN = "train with the base's tokenizer, or remove this file"
_UNITE = "merge it with `tokenizer: union`, or train with the base's tokenizer"


def check(folder: Path, base_folder: Path | None, name: str) -> list[Finding]:
    """Return in which tokens, or rows for them, a checkpoint differs from its base.

    A union of vocabularies takes it nevertheless, every other merge refuses it. `name` is what
    messages call it; without the base's bytes there is nothing to compare.
    """
    found = check_tokens(folder, base_folder, name, hint=_UNITE)
    if found or base_folder is None:
        return found
    try:
        mine, base = model.read_model(folder), model.read_model(base_folder)
    except (ModelError, HeaderError):
        return []  # told by whoever looks at headers
    return _check_rows(mine, base, folder, base_folder)


def check_tokens(
    folder: Path,
    base_folder: Path | None,
    name: str = "this folder",
    *,
    hint: str = _TRAIN,
) -> list[Finding]:
    """Compare the tokens where both folders have a tokenizer; its absence is no finding."""
    if base_folder is None or _is_same_tokenizer(folder, base_folder):
        return []
    mine = vocabulary.read_tokens(folder)
    theirs = vocabulary.read_tokens(base_folder) if mine is not None else None
    if mine is None or theirs is None:
        return []
    words = vocabulary.difference(mine, theirs, name)
    why = f"expected the vocabulary of the base: {words}"
    return [Finding(TOKENIZER, "", why, hint)] if words else []


def _is_same_tokenizer(folder: Path, base_folder: Path) -> bool:
    # The usual case: megabytes that need not be parsed.
    mine, theirs = folder / TOKENIZER, base_folder / TOKENIZER
    if not (mine.is_file() and theirs.is_file()):
        return False
    return mine.stat().st_size == theirs.stat().st_size and filecmp.cmp(mine, theirs, shallow=False)


def other_rows(header: ModelHeader, base: ModelHeader) -> frozenset[str]:
    """Return the tensors that differ from the base's in nothing but the rows of a vocabulary."""
    count = vocabulary.rows(header.config)
    if count is None or count == vocabulary.rows(base.config):
        return frozenset()
    try:
        names = vocabulary.vocabulary_tensors(base.shapes, base.config).names
    except VocabularyError:
        return frozenset()
    found, wanted = header.shapes, base.shapes
    return frozenset(n for n in names if found.get(n) == (count, *wanted[n][1:]))


def no_union(base: ModelHeader, folder: Path) -> list[str]:
    """Return why no vocabulary can be united with that of a base in `folder`."""
    if not (folder / TOKENIZER).is_file():
        return [f"a union of vocabularies needs the base's {TOKENIZER}, found none"]
    try:
        vocabulary.vocabulary_tensors(base.shapes, base.config)
    except VocabularyError as error:
        return [str(error)]
    return []


def _check_rows(
    header: ModelHeader, base: ModelHeader, folder: Path, base_folder: Path
) -> list[Finding]:
    """Return rows of another number that no tokenizer explains as padding."""
    if not (names := sorted(other_rows(header, base))):
        return []
    counts = vocabulary.rows(base.config), vocabulary.rows(header.config)
    file = header.tensors[names[0]].file
    why = f"expected the base's {counts[0]} rows, found {counts[1]}"
    shared = vocabulary.shared_file(folder, base_folder)
    if shared is None:
        why = f"{why}, and no tokenizer that tells padding from tokens"
        return [Finding(file, f"tensor {names[0]}", why, "put its tokenizer.json beside it")]
    needed = vocabulary.last_row(vocabulary.read_tokens(folder, shared) or {})
    if needed > min(count or 0 for count in counts):
        why = f"{why}, too few for {needed} tokens"
        return [Finding(file, f"tensor {names[0]}", why)]
    return []
