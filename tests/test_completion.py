"""What a shell offers: the program asked as click's scripts ask it, and bash itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Repository


def offered(repository: Repository, line: str) -> list[str]:
    words = line.split(" ")
    ran = repository.run(
        _REGISTRY_COMPLETE="bash_complete",
        COMP_WORDS=line,
        COMP_CWORD=str(len(words) - 1),
    )
    assert ran.err == ""
    return [row.partition(",")[2] for row in ran.out.splitlines() if row]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("registry pl", ["plan"]),
        ("registry show both", ["both-skills"]),
        ("registry sync both-skills ave", ["average"]),
        ("registry plan --against ma", ["main"]),
        ("registry diff average v", ["v1"]),
        ("registry impact adapter form", ["formal@1"]),
        ("registry recall base t", ["tiny-llama"]),
        ("registry impact merge av", ["average"]),
        ("registry show nothing-like-it", []),
    ],
)
def test_commands_models_and_revisions_are_completed(
    repository: Repository, line: str, expected: list[str]
) -> None:
    repository.git("tag", "v1")

    assert offered(repository, line) == expected


def test_outside_a_repository_no_name_is_offered_and_nothing_is_said(tmp_path: Path) -> None:
    assert offered(Repository(tmp_path), "registry show b") == []
    assert offered(Repository(tmp_path), "registry val") == ["validate"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_a_model_after_the_script_was_read(repository: Repository) -> None:
    script = repository.run("completion", "bash").out
    asked = (
        "COMP_WORDS=(registry show both); COMP_CWORD=2; _registry_completion registry both show\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    tools = Path(sys.executable).parent

    done = subprocess.run(
        ["bash", "-c", f'PATH="{tools}:$PATH"\n{script}\n{asked}'],
        cwd=repository.root,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "both-skills\n")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script_that_asks_the_program(
    repository: Repository, shell: str
) -> None:
    script = repository.run("completion", shell).out

    assert f"_REGISTRY_COMPLETE={shell}_complete" in script
    assert "registry" in script
