"""What a failed keyword of a JSON Schema means in words, and what to write instead.

Pure functions from a value and the fragment of the schema that refused it to (message, hint).
Knows neither files nor places; reads the schema's own `examples`, `description` and `x-expected`
(what a pattern asks for, in words), so that a new field needs no new code here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import schemas
from registry.documents import quote
from registry.errors import did_you_mean
from registry.scalars import scalar

Message = tuple[str, str]
"""What is wrong, and the cure."""

_NOUNS = {
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}
# Comparing spellings costs; who wrote more unknown keys than this did not misspell one.
_COMPARED = 50
_LONGEST_SHOWN = 80  # a digest has 71
_SCHEDULED = ["number", "object"]

# What people call things elsewhere, where the spelling alone would not lead to our word.
_ALSO_CALLED = {
    "fp32": "float32",
    "f32": "float32",
    "fp64": "float64",
    "double": "float64",
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
    "gpu": "cuda",
    "addition": "task_arithmetic",
    "average": "linear",
    "soup": "linear",
    "ties-merging": "ties",
    "safetensors": "model",
    "lora": "adapter",
    "peft": "adapter",
    "finetune": "checkpoint",
    "model": "merge",
    "alpha": "weight",
    "coefficient": "weight",
    "scale": "weight",
    "sparsity": "density",
    "scaling_coefficient": "lambda",
    "dtype": "compute",
    "min": "at_least",
    "max": "at_most",
    "base_model": "base",
    "models": "terms",
    "merge_method": "method",
    "hash": "digest",
    "sha256": "digest",
    "exact": "exact_match",
    "sql": "sql_execution",
    "regex": "pattern_share",
}


def one_of(words: Iterable[str]) -> str:
    """Return `a, b or c`."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def shown(value: Any, source: str | None = None) -> str:
    """Return a value as a message shows it, numbers as they are written in the file."""
    if isinstance(value, str):
        return quote(value)
    return describe(value, source)


def describe(value: Any, source: str | None = None) -> str:
    """Return what a value is, for a message about its type."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {quote(value)}"
    if isinstance(value, dict | list):
        noun = "mapping" if isinstance(value, dict) else "list"
        return f"a {noun}" if value else f"an empty {noun}"
    return (source or str(value))[:40]


def unknown_key(name: str, siblings: Mapping[str, Any], schema: Mapping[str, Any]) -> Message:
    """Explain a key that the schema does not have."""
    known = list(schema.get("properties", {}))
    if not known:
        return f"expected no field here, found {quote(name)}", _elsewhere(name)
    free = [other for other in known if other not in siblings]
    hint = (
        _near(name, free)
        or _near(name, known)
        or _elsewhere(name)
        or f"known here: {', '.join(known)}"
    )
    return f"expected a known field, found {quote(name)}", hint


_OWNERS_SHOWN = 3


def _elsewhere(name: str) -> str:
    owners = [method for method, facts in schemas.methods().items() if name in facts["properties"]]
    if len(owners) > _OWNERS_SHOWN:
        owners = [*owners[:_OWNERS_SHOWN], f"{len(owners) - _OWNERS_SHOWN} other methods"]
    return f"{name} is a parameter of {', '.join(owners)}" if owners else ""


def _near(word: str, known: Iterable[str]) -> str:
    known = list(known)
    plain = word.strip().lower().replace("-", "_")
    for candidate in (plain, plain.replace("_", ""), _ALSO_CALLED.get(word.strip().lower(), "")):
        if candidate in known:
            return f"did you mean {candidate}"
    return did_you_mean(word, known)


def is_meant(missing: str, siblings: Iterable[str], schema: Mapping[str, Any]) -> bool:
    """Return whether an unknown key looks like the missing one: then one message is enough."""
    unknown = [name for name in siblings if name not in schema.get("properties", {})]
    return any(_near(name, [missing]) for name in unknown[:_COMPARED])


def missing(name: str, schema: Mapping[str, Any]) -> Message:
    """Explain a field that is required and absent."""
    field = schema.get("properties", {}).get(name, {})
    hint = field.get("x-hint") or f"for example {name}: {_example(field) or '…'}"
    return "expected this field, found none", hint


def _written(value: Any) -> str:
    """Return a value as YAML has it."""
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _example(field: Mapping[str, Any]) -> str:
    if "const" in field or "enum" in field:
        return _written(field.get("const") or field["enum"][0])
    if field.get("examples"):
        return _written(field["examples"][0])
    if field.get("required"):
        return f"{{{', '.join(f'{name}: …' for name in field['required'])}}}"
    return "[…]" if field.get("type") == "array" else ""


def exactly_one(branches: Iterable[Mapping[str, Any]], value: Mapping[str, Any]) -> Message:
    """Explain a mapping that has none or several of the fields that exclude each other."""
    names = [branch["required"][0] for branch in branches]
    found = [name for name in names if name in value]
    choice = one_of(names).replace(" or ", " and ")
    if not found:
        return f"expected exactly one of {choice}, found none", f"for example {names[0]}: …"
    hint = "write one term for each"
    return f"expected exactly one of {choice}, found {' and '.join(found)}", hint


def wrong_text(value: str, schema: Mapping[str, Any]) -> Message:
    """Explain text that does not match its pattern."""
    expected = schema.get("x-expected") or f"text that matches {schema.get('pattern')}"
    fitting = (c for c in _candidates(value) if re.fullmatch(schema.get("pattern", ""), c))
    better = next(fitting, "") if len(value) <= _LONGEST_SHOWN else ""
    hint = f"write {better}" if better else schema.get("x-hint", "")
    return f"expected {expected}, found {quote(value)}", hint


def _candidates(value: str) -> Iterator[str]:
    """Return what may have been meant, the likeliest first; the pattern decides."""
    text = value.strip()
    yield text
    yield text.lower()
    yield f"sha256:{text.lower()}"
    compact = re.sub(r"\s+", "", text).upper().replace("IB", "B")
    yield compact
    yield re.sub(r"(?<=[0-9][KMG])$", "B", compact)
    yield re.sub(r"(\.jsonl?)?$", ".jsonl", text, count=1)
    if not re.search(r"[/:@\\]", text):  # an address is no misspelt name
        yield re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def wrong_value(
    keyword: str, value: Any, schema: Mapping[str, Any], source: str | None = None
) -> Message:
    """Explain a value that one keyword of its schema refused; `source` is how it is written."""
    if keyword == "type":
        return _wrong_type(value, schema, source)
    if keyword in ("enum", "const"):
        return _wrong_word(value, schema, source)
    if keyword == "pattern":
        return wrong_text(value, schema)
    if keyword == "not":
        return f"expected no such field here, found {shown(value, source)}", schema["description"]
    if keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        message = f"expected {_range(schema, value)}, found {describe(value, source)}"
        return message, _share(value, schema)
    return _wrong_size(keyword, value, schema)


def _wrong_word(value: Any, schema: Mapping[str, Any], source: str | None) -> Message:
    if "const" in schema:
        wanted = _written(schema["const"])
        return f"expected {wanted}, found {shown(value, source)}", f"write {wanted}"
    hint = _near(value, schema["enum"]) if isinstance(value, str) else ""
    hint = hint or schema.get("x-hint", "")
    return f"expected {one_of(schema['enum'])}, found {shown(value, source)}", hint


def _wrong_size(keyword: str, value: Any, schema: Mapping[str, Any]) -> Message:
    if keyword == "minProperties":
        return f"expected at least one of {one_of(schema['properties'])}, found none", ""
    if keyword in ("minItems", "maxItems") and schema.get("minItems") == schema.get("maxItems"):
        counts = f"expected {schema['minItems']} entries, found {len(value)}"
        return counts, schema.get("x-hint", "")
    if keyword == "minItems":
        return "expected at least one entry, found an empty list", ""
    if keyword == "minLength":
        return "expected text, found an empty one", ""
    if keyword == "maxLength":
        return f"expected at most {schema['maxLength']} characters, found {len(value)}", ""
    return f"expected a value that satisfies {keyword}, found {shown(value)}", ""


def _range(schema: Mapping[str, Any], value: float) -> str:
    noun = _NOUNS["integer"] if schema.get("type") == "integer" else _NOUNS["number"]
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if noun == _NOUNS["integer"]:
        is_open = high is None or (high >= 2**53 - 1 and value <= high)
        return f"{noun} from {low}" if is_open else f"{noun} from {low} to {high}"
    if high is None:
        return f"{noun} {'above' if 'minimum' not in schema else 'of at least'} {low}"
    if low is None:
        return f"{noun} {'below' if 'maximum' not in schema else 'of at most'} {high}"
    opening = "[" if "minimum" in schema else "("
    return f"{noun} in {opening}{low}, {high}{']' if 'maximum' in schema else ')'}"


def _share(value: float, schema: Mapping[str, Any]) -> str:
    is_percent = schema.get("maximum") == 1 and 1 < value <= 100
    return f"write {value / 100:g} for {value:g} %" if is_percent else ""


def _wrong_type(value: Any, schema: Mapping[str, Any], source: str | None) -> Message:
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    nouns = "a number or a schedule" if types == _SCHEDULED else one_of(_NOUNS[t] for t in types)
    message = f"expected {nouns}, found {describe(value, source)}"
    if value is None:
        return message, "write a value, or remove the line"
    for wanted in types:
        if hint := _TYPE_CURES[wanted](value, schema, source):
            return message, hint
    return message, ""


def _to_number(value: Any, schema: Mapping[str, Any], _: str | None) -> str:
    if isinstance(value, bool):
        return f"write {int(value)}"
    if isinstance(value, list) and schema["type"] == _SCHEDULED:
        return "for values per layer write {layers: […]}"
    if not isinstance(value, str) or len(value) > _LONGEST_SHOWN:
        return ""
    text = value.strip()
    if re.fullmatch(r"[-+]?[0-9]*,[0-9]+", text):
        return f"write {text.replace(',', '.')}"
    if percent := re.fullmatch(r"([-+]?[0-9]+(?:\.[0-9]+)?) ?%", text):
        return f"write {float(percent[1]) / 100:g}"
    plain = text.replace("_", "")
    is_number = type(scalar(plain)) in (int, float)
    return f"write {plain}, without quotes" if is_number and plain else ""


def _to_integer(value: Any, _: Mapping[str, Any], __: str | None) -> str:
    if isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    if isinstance(value, str) and (digits := re.fullmatch(r"\s*v?([0-9]{1,15})\s*", value)):
        return f"write {int(digits[1])}" + ("" if "v" in value else ", without quotes")
    return ""


def _to_text(value: Any, schema: Mapping[str, Any], source: str | None) -> str:
    if isinstance(value, dict | list):
        return ""
    text = source if source is not None else str(value).lower()
    if re.fullmatch(schema.get("pattern", ".*"), text):
        return f'write "{text}", in quotes'
    example = _example(schema)
    return f"for example {example}" if example else ""


def _to_boolean(value: Any, _: Mapping[str, Any], __: str | None) -> str:
    word = str(value).strip().lower()
    if word in ("yes", "y", "on", "1", "true"):
        return "write true"
    return "write false" if word in ("no", "n", "off", "0", "false") else ""


def _to_list(value: Any, schema: Mapping[str, Any], _: str | None) -> str:
    if isinstance(value, dict):
        return "start every entry with -"
    if hint := schema.get("x-hint", ""):
        return str(hint)
    return f"write [{value}]" if isinstance(value, str) and len(value) <= 40 else ""


def _to_mapping(value: Any, schema: Mapping[str, Any], _: str | None) -> str:
    if schema["type"] == _SCHEDULED:
        return ""
    required, known = schema.get("required", []), list(schema.get("properties", {}))
    is_short = isinstance(value, str | int | float) and len(str(value)) <= _LONGEST_SHOWN
    if len(required) == 1 and is_short and not isinstance(value, bool):
        return f"write {{{required[0]}: {value}}}"
    names = required or known[:1]
    return f"write {{{', '.join(f'{name}: …' for name in names)}}}" if names else ""


_TYPE_CURES = {
    "number": _to_number,
    "integer": _to_integer,
    "string": _to_text,
    "boolean": _to_boolean,
    "array": _to_list,
    "object": _to_mapping,
}
