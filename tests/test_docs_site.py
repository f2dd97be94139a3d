"""The site of the documentation: it builds without a warning, and names commands that exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from registry.cli import _COMMANDS, registry
from scripts import reference

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCED = re.compile(r"^```(?:sh|console|yaml|bash)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^ {4}.*\n)+", re.MULTILINE)
_CALL = re.compile(r"(?:^|&& |\$ |run: |\(|\| )(registry [^|&>#)\n]*)", re.MULTILINE)


def calls(text: str) -> Iterator[str]:
    """Yield the calls of `registry` in a page's blocks of code."""
    blocks = [*_FENCED.findall(text), *(one.replace("    ", "") for one in _INDENTED.findall(text))]
    for block in blocks:
        yield from (one.strip() for one in _CALL.findall(block))


def options_of(call: str) -> tuple[click.Command, list[str]]:
    """Return the command that a call is of, and its long options."""
    words = shlex.split(call.replace("…", ""), comments=True)[1:]
    command: click.Command = registry
    context = click.Context(registry)
    while words and isinstance(command, click.Group):
        if words[0] == "-C":
            words = words[2:]
            continue
        found = command.get_command(context, words[0])
        if found is None:
            break
        command, words = found, words[1:]
    return command, [one.partition("=")[0] for one in words if one.startswith("--")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_call_in_the_docs_is_of_a_command_and_options_that_exist(page: Path) -> None:
    for call in calls(page.read_text("utf-8")):
        command, used = options_of(call)
        assert command is not registry or not used, call
        known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        assert set(used) <= known | {"--help", "--version"}, call


def test_the_tour_is_of_the_catalog_as_it_is() -> None:
    models = len(list((ROOT / "catalog/merges").glob("*.yaml")))

    told = re.findall(r"nothing to do: (\d+) up to date", (ROOT / "README.md").read_text("utf-8"))

    assert told == [str(models)] * 2


def test_the_calls_of_a_page_are_found() -> None:
    page = "```sh\nx && registry plan --against main > a\n```\n\n    registry sync --push    # y\n"

    assert list(calls(page)) == ["registry plan --against main", "registry sync --push"]
    assert options_of("registry plan --against main")[1] == ["--against"]


def test_the_site_builds_without_a_warning_and_has_every_command_and_field(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    commands = (tmp_path / "reference/commands/index.html").read_text("utf-8")
    for name in _COMMANDS:
        assert f"Usage: registry {name} " in commands, name
    files = (tmp_path / "reference/files/index.html").read_text("utf-8")
    for field in ("recipe.terms", "weights.digest", "evaluation.gates", "revoked.reason"):
        assert f"<code>{field}</code>" in files, field
    # Nothing is fetched from anybody else when a page is opened.
    for page in tmp_path.rglob("index.html"):
        loaded = re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="(https?:)?//', page.read_text()
        )
        assert not loaded, page


def test_the_reference_says_what_is_required_and_what_is_the_default() -> None:
    rows = reference.documents().splitlines()

    assert any(row.startswith("| `recipe.seed` | integer, default `0` |") for row in rows)
    assert any(row.startswith("| `base` | string, required |") for row in rows)
