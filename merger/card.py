"""The model card and recipe.json, written from the request alone.

Nothing here knows the time, the host, a path, the model's own name or what it scored: two merges
with equal requests have equal cards.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import schemas
from merger.request import BuildRequest, Recipe
from schemas.canonical import canonical
from schemas.expression import expression

_MINUS = "\N{MINUS SIGN}"

_HOW = """\
The file `recipe.json` beside this card holds the complete build request: every operand by its
content digest, every parameter written out. Its sha256 is the build key. The same request, given
to the same version of the numerics (`numerics` in it) on the same class of device, gives the same
bytes:

    python -m merger build --request recipe.json --input DIGEST=FOLDER ... --output FOLDER

Configuration and tokenizer come from the base model."""


def recipe_json(request: BuildRequest) -> bytes:
    """Return recipe.json: the canonical JSON of the request, whose sha256 is the build key."""
    return canonical(request.data)


def model_card(request: BuildRequest) -> bytes:
    """Return README.md: front matter for model hubs, the expression, parameters and operands."""
    recipe = request.recipe
    lines = [
        "---",
        f"base_model: {json.dumps(request.base.name)}",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags:",
        "- merge",
        f"- {json.dumps(recipe.method)}",
        "---",
        "",
        f"# {expression(request.base.name, request.data['recipe'])}",
        "",
        _summary(request),
        "",
        schemas.method(recipe.method)["description"],
        "",
        "## Parameters",
        "",
        *_table(("parameter", "value"), _parameters(request)),
        "",
        "## Operands",
        "",
        "A term with a negative weight is subtracted.",
        "",
        *_table(
            ("operand", "kind", "weight", "differing parameters", "digest"), _operands(request)
        ),
        "",
        "## How it was made",
        "",
        _HOW,
        "",
    ]
    return "\n".join(lines).encode()


def _summary(request: BuildRequest) -> str:
    count = _count(len(request.recipe.terms))
    method = request.recipe.method
    return f"The base model `{request.base.name}` with {count} merged onto it by `{method}`."


def _parameters(request: BuildRequest) -> Iterable[tuple[str, ...]]:
    recipe: Recipe = request.recipe
    yield "method", _code(recipe.method)
    for name, value in sorted(recipe.parameters.items()):
        yield name, _value(value)
    if "seed" in request.data["recipe"]:
        yield "seed", _value(request.data["recipe"]["seed"])
    yield "compute", _code(recipe.compute)
    dtype = request.output.dtype
    yield "dtype", "that of the base" if dtype == "base" else _code(dtype)
    yield "numerics", _value(request.data["numerics"])


def _operands(request: BuildRequest) -> Iterable[tuple[str, ...]]:
    base = request.base
    yield _code(base.short), base.kind, "", "", _code(base.digest)
    for term in request.recipe.terms:
        operand = term.operand
        differing = ", ".join(
            f"{name} {_value(value)}" for name, value in sorted(term.parameters.items())
        )
        weight, digest = _value(term.weight), _code(operand.digest)
        yield _code(operand.short), operand.kind, weight, differing, digest


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [head, ("---",) * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _value(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value).replace("-", _MINUS)
    return _code(value if isinstance(value, str) else canonical(value).decode())


def _number(value: float) -> str:
    return canonical(value).decode()


def _code(text: str) -> str:
    # A pattern may hold anything: a bar would end the table's cell, a backtick the code.
    fence = "`" if "`" not in text else "``" if "``" not in text else "```"
    inner = text.replace("|", "\\|").replace("\n", " ")
    return f"{fence}{inner}{fence}" if fence == "`" else f"{fence} {inner} {fence}"


def _count(terms: int) -> str:
    return "one term" if terms == 1 else f"{terms} terms"
