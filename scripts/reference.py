"""Pages of the documentation's reference: commands from click, files from the JSON Schemas.

A hook of mkdocs: the pages are made when the site is built, and stand in no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

import schemas
from registry.cli import registry

_KINDS = ("registry", "base", "adapter", "checkpoint", "merge", "suite")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages to the site."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def pages() -> dict[str, str]:
    """Return the pages by path."""
    return {"reference/commands.md": commands(), "reference/files.md": documents()}


def commands() -> str:
    """Return every command with its help, as `--help` prints it."""
    context = click.Context(registry, info_name="registry")
    return "\n".join(["# Commands", "", *_command(registry, context, 2)]) + "\n"


def _command(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    if level > 2:
        yield f"{'#' * (level - 1)} {context.command_path}\n"
    # Plain: no width of somebody's terminal.
    context.max_content_width = 100
    context.terminal_width = 100
    yield f"```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _command(inner, click.Context(inner, context, name), level + 1)


def documents() -> str:
    """Return every field of every kind of document."""
    parts = [
        "# Files\n",
        "Each kind has a JSON Schema in `schemas/`, from which this page is made.\n",
    ]
    for kind in _KINDS:
        data = schemas.load(kind)
        parts.append(f"## {kind}\n\n{data.get('description', '')}\n")
        parts.append("| field | | |\n|---|---|---|")
        parts += [f"| {cells} |" for cells in _fields(data, data, "", 0)]
        parts.append("")
    return "\n".join(parts) + "\n"


def _fields(
    node: Mapping[str, Any], whole: Mapping[str, Any], path: str, depth: int
) -> Iterator[str]:
    required = node.get("required", ())
    for name, field in node.get("properties", {}).items():
        found = _resolved(field, whole)
        facts = [_kind(found)]
        facts += ["required"] if name in required else []
        facts += [f"default `{found['default']}`"] if "default" in found else []
        text = str(found.get("description", field.get("description", ""))).replace("|", "\\|")
        text = text.replace("<", "&lt;").replace("\n", " ")
        place = f"{path}.{name}" if path else name
        yield f"`{place}` | {', '.join(one for one in facts if one)} | {text}"
        if depth < 2:
            yield from _fields(found, whole, place, depth + 1)


def _resolved(field: Mapping[str, Any], whole: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = field.get("$ref", "")
    if not reference.startswith("#/"):
        return field
    found: Any = whole
    for part in reference[2:].split("/"):
        found = found[part]
    return {**found, **{key: value for key, value in field.items() if key != "$ref"}}


def _kind(field: Mapping[str, Any]) -> str:
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{one}`" for one in field["enum"])
    kinds = field.get("type", "")
    return kinds if isinstance(kinds, str) else " or ".join(kinds)
