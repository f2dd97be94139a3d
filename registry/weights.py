"""What can be said of weights before they are merged: from headers and configurations alone.

Every check is a pure function of the files of a folder and of what it is compared with, so the
index may remember its result. Reads no tensor, imports no library of tensors; knows no YAML file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import astuple
from pathlib import Path

from registry import vocabulary
from registry.finding import Finding
from registry.index import Index
from schemas import lora, model
from schemas.digest import INDEX, TreeError
from schemas.header import FLOATS, HeaderError, read_header
from schemas.model import ModelError, ModelHeader

Shapes = Mapping[str, tuple[int, ...]]

# How many of many are named: enough to see the pattern, few enough to read.
_NAMED = 3
_CONFIGS = ("config.json", "generation_config.json", "tokenizer_config.json")


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


def check_checkpoint(folder: Path, base: ModelHeader | None) -> list[Finding]:
    """Return what keeps a folder from being a full fine-tune of `base`.

    Without the base's bytes only what the folder says alone is checked. Other tokens keep it from
    nothing, as a union of vocabularies takes them; `check_vocabulary` looks at those.
    """

    def check() -> list[Finding]:
        header = model.read_model(folder)
        found = _check_model(header)
        return found + (_compare(header, base) if base else [])

    return _guarded(folder, check)


def check_vocabulary(folder: Path, base_folder: Path, name: str) -> list[Finding]:
    """Return in which tokens, or rows for them, a checkpoint differs from its base."""
    return _guarded(folder, lambda: vocabulary.check(folder, base_folder, name))


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

    return _guarded(folder, check, lambda: vocabulary.check_tokens(folder, base_folder))


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


def _compare(header: ModelHeader, base_header: ModelHeader) -> list[Finding]:
    found, base = header.shapes, base_header.shapes
    rows = vocabulary.other_rows(header, base_header)
    files = sorted({located.file for located in header.tensors.values()})
    whole = files[0] if len(files) == 1 else INDEX
    findings: list[Finding] = []
    if absent := sorted(base.keys() - found.keys()):
        why = f"expected every tensor of the base, {len(absent)} missing: {_few(absent)}"
        findings.append(Finding(whole, "", why, "a checkpoint holds the whole model"))
    if added := sorted(found.keys() - base.keys()):
        why = f"expected only tensors of the base, found {len(added)} more: {_few(added)}"
        findings.append(Finding(whole, "", why))
    shared = sorted(base.keys() & found.keys() - rows)
    differing = [name for name in shared if found[name] != base[name]]
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
