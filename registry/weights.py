"""What can be said of weights before they are merged: from headers and configurations alone.

Every check is a pure function of the files of a folder and of what it is compared with, so the
index may remember its result. Reads no tensor, imports no library of tensors; knows no YAML file.
"""

from __future__ import annotations

import filecmp
import json
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from registry.documents import quote
from registry.index import Index
from schemas import lora, model
from schemas.digest import INDEX, TreeError
from schemas.header import FLOATS, HeaderError, read_header
from schemas.model import ModelError, ModelHeader

Shapes = Mapping[str, tuple[int, ...]]

# How many of many are named: enough to see the pattern, few enough to read.
_NAMED = 3
_CONFIGS = ("config.json", "generation_config.json", "tokenizer_config.json")
_TOKENIZER = "tokenizer.json"
_MOST_JSON_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Something wrong with weights: file in their folder, field or tensor, message, cure."""

    file: str
    field: str
    message: str
    hint: str = ""

    @property
    def subject(self) -> str:
        """File and field as one text."""
        return ": ".join(part for part in (self.file, self.field) if part)


def check_digest(folder: Path, expected: str, index: Index) -> Finding | None:
    """Return what is wrong with a folder's tree digest, None if it is the expected one."""
    try:
        found = index.folder_digest(folder)
    except TreeError as error:
        return Finding(error.path, "", error.why, "put the file itself there")
    except OSError as error:
        return Finding(_name(error), "", f"cannot be read: {error.strerror}")
    if found == expected:
        return None
    hint = "restore the bytes; changed weights are a new version"
    return Finding("", "", f"expected {expected}, found {found}", hint)


def remembered(
    index: Index, folder: Path, context: object, check: Callable[[], list[Finding]]
) -> list[Finding]:
    """Return what `check` finds in `folder`, from the index while no file of it changed.

    `context` is plain data that names the check and everything else that its result depends on,
    such as the base's digest.
    """
    try:
        facts = index.folder_signature(folder)
    except TreeError as error:
        return [Finding(error.path, "", error.why, "put the file itself there")]
    except OSError as error:
        return [Finding(_name(error), "", f"cannot be read: {error.strerror}")]
    key = json.dumps([str(folder), context])
    told = index.cached("weights", key, facts, lambda: [list(astuple(f)) for f in check()])
    return [Finding(*one) for one in told]


def check_base(folder: Path) -> list[Finding]:
    """Return what keeps a folder from being a base model."""
    return _guarded(folder, lambda: _check_model(model.read_model(folder)))


def check_checkpoint(
    folder: Path, base: ModelHeader | None, base_folder: Path | None = None
) -> list[Finding]:
    """Return what keeps a folder from being a full fine-tune of `base`.

    Without the base's bytes only what the folder says alone is checked.
    """

    def check() -> list[Finding]:
        header = model.read_model(folder)
        found = _check_model(header)
        return found + (_compare(header, base.shapes) if base else [])

    return _guarded(folder, check, lambda: _vocabulary(folder, base_folder))


def check_adapter(
    folder: Path, base: ModelHeader | None, base_folder: Path | None = None
) -> list[Finding]:
    """Return what keeps a folder from being a LoRA adapter of `base`.

    Without the base's bytes only what the folder says alone is checked.
    """

    def check() -> list[Finding]:
        model.refuse_pickles(folder)
        config = model.read_config(folder, lora.CONFIG)
        lora.check_config(config)
        header = read_header(folder / lora.WEIGHTS)
        if base is not None:
            lora.lora_targets(config, header, base.infos, base.config)
        return _strays(folder)

    return _guarded(folder, check, lambda: _vocabulary(folder, base_folder))


def _guarded(folder: Path, *checks: Callable[[], list[Finding]]) -> list[Finding]:
    """Run checks one by one; what one raises about the files becomes its finding."""
    found: list[Finding] = []
    for check in (lambda: _refuse_code(folder), *checks):
        try:
            found += check()
        except (OSError, ValueError, OverflowError, RecursionError) as error:
            found.append(_finding(error))
    return list(dict.fromkeys(found))


def _finding(error: Exception) -> Finding:
    match error:
        case ModelError():
            return Finding(error.path, error.field, error.why)
        case HeaderError():
            tensor = f"tensor {error.tensor}" if error.tensor else ""
            hint = "write the file again with the safetensors library"
            return Finding(error.path.name, tensor, error.why, hint)
        case lora.AdapterError():
            file = lora.WEIGHTS if error.tensor or not error.field else lora.CONFIG
            subject = f"tensor {error.tensor}" if error.tensor else error.field
            return Finding(file, subject, error.why)
        case OSError():
            return Finding(_name(error), "", f"cannot be read: {error.strerror}")
    # Hostile files reach corners of json and re that raise something else.
    return Finding("", "", f"cannot be understood: {error}"[:200])


def _name(error: OSError) -> str:
    return Path(str(error.filename)).name if error.filename else ""


def _refuse_code(folder: Path) -> list[Finding]:
    for name in _CONFIGS:
        if (folder / name).is_file():
            model.read_config(folder, name)
    return []


def _check_model(header: ModelHeader) -> list[Finding]:
    wrong = [
        Finding(located.file, f"tensor {name}", f"expected F32, F16 or BF16, found {dtype}")
        for name, located in header.tensors.items()
        if (dtype := located.info.dtype) not in FLOATS and name.endswith((".weight", ".bias"))
    ]
    return wrong[:_NAMED]


def _compare(header: ModelHeader, base: Shapes) -> list[Finding]:
    found = header.shapes
    files = sorted({located.file for located in header.tensors.values()})
    whole = files[0] if len(files) == 1 else INDEX
    findings: list[Finding] = []
    if absent := sorted(base.keys() - found.keys()):
        why = f"expected every tensor of the base, {len(absent)} missing: {_few(absent)}"
        findings.append(Finding(whole, "", why, "a checkpoint holds the whole model"))
    if added := sorted(found.keys() - base.keys()):
        why = f"expected only tensors of the base, found {len(added)} more: {_few(added)}"
        findings.append(Finding(whole, "", why))
    differing = [name for name in sorted(base.keys() & found.keys()) if found[name] != base[name]]
    for name in differing[:_NAMED]:
        why = f"expected the base's shape {list(base[name])}, found {list(found[name])}"
        findings.append(Finding(header.tensors[name].file, f"tensor {name}", why))
    return findings


def _strays(folder: Path) -> list[Finding]:
    # Other weights in an adapter's folder (embeddings saved beside it) would silently be left out.
    others = sorted(p.name for p in folder.glob("*.safetensors") if p.name != lora.WEIGHTS)
    why = f"expected no weights but {lora.WEIGHTS}"
    return [Finding(name, "", why, "keep in the adapter what changes the model") for name in others]


def _few(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")


def _vocabulary(folder: Path, base_folder: Path | None) -> list[Finding]:
    """Compare the vocabulary where both folders have a tokenizer; its absence is no finding."""
    if base_folder is None or _is_same_tokenizer(folder, base_folder):
        return []
    mine = read_vocabulary(folder)
    theirs = read_vocabulary(base_folder) if mine is not None else None
    if mine is None or theirs is None or mine == theirs:
        return []
    differing = sorted(
        (token for token in mine.keys() | theirs.keys() if mine.get(token) != theirs.get(token)),
        key=lambda token: (mine.get(token, -1), token),
    )
    few = _few([quote(token) for token in differing])
    why = f"expected the vocabulary of the base, found {len(differing)} tokens that differ: {few}"
    return [Finding(_TOKENIZER, "", why, "train with the base's tokenizer, or remove this file")]


def _is_same_tokenizer(folder: Path, base_folder: Path) -> bool:
    # The usual case: megabytes that need not be parsed.
    mine, theirs = folder / _TOKENIZER, base_folder / _TOKENIZER
    if not (mine.is_file() and theirs.is_file()):
        return False
    return mine.stat().st_size == theirs.stat().st_size and filecmp.cmp(mine, theirs, shallow=False)


def read_vocabulary(folder: Path) -> dict[str, int] | None:
    """Return the tokens of a folder's tokenizer.json by id, None if there is none.

    Raises ModelError if the file is no tokenizer.
    """
    path = folder / _TOKENIZER
    if not path.is_file():
        return None
    if path.stat().st_size > _MOST_JSON_BYTES:
        raise ModelError(_TOKENIZER, "expected at most 256 MiB")
    data = model.read_config(folder, _TOKENIZER)
    try:
        return _tokens(data)
    except (TypeError, KeyError, AttributeError, IndexError) as error:
        raise ModelError(_TOKENIZER, "expected model.vocab and added_tokens", "model") from error


def _tokens(data: Mapping[str, Any]) -> dict[str, int]:
    vocabulary = data["model"]["vocab"]
    if isinstance(vocabulary, list):  # Unigram: pairs of token and score, in the order of ids
        tokens = {str(token): number for number, (token, *_) in enumerate(vocabulary)}
    else:
        tokens = {str(token): int(number) for token, number in vocabulary.items()}
    for added in data.get("added_tokens") or ():
        tokens[str(added["content"])] = int(added["id"])
    return tokens
