"""The command line: exit codes, where words go, what a script reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from registry.cli import _COMMANDS
from tests.conftest import Repository

MERGE = "catalog/merges/both-skills.yaml"


def test_every_command_is_listed_and_has_help(repository: Repository) -> None:
    listed = repository.run("--help").out

    for command in _COMMANDS:
        assert f"  {command} " in listed
        ran = repository.run(command, "--help")
        assert ran.code == 0
        assert ran.out.startswith("Usage: registry")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["plam"], 64, "did you mean plan"),
        (["plan", "both-skill"], 64, "no model both-skill\n  hint: did you mean both-skills"),
        (["plan", "--against", "nowhere"], 64, "expected a revision of models, found 'nowhere'"),
        (["plan", "--format", "xml"], 64, "xml"),
        (["show", "nothing"], 64, "no model nothing"),
        (["sync", "--plan", "absent.json"], 64, "absent.json"),
        (["sync", "--memory", "2gb"], 64, "expected a size like 500MB or 2GB, found 2gb"),
        (["sync", "--memory", "0GB"], 64, "found 0GB"),
        (["sync", "--plan", MERGE], 64, "expected a plan saved by"),
        (["export", "both-skills", "out"], 1, "both-skills is not built"),
        (["verify", "both-skills"], 1, ""),
    ],
)
def test_wrong_usage_has_its_exit_code(
    repository: Repository, arguments: list[str], code: int, told: str
) -> None:
    ran = repository.run(*arguments)

    assert ran.code == code, ran.err
    assert told in ran.err
    assert "Traceback" not in ran.err


def test_outside_a_repository_the_way_out_is_told(tmp_path: Path) -> None:
    ran = Repository(tmp_path).run("plan")

    assert ran.code == 64
    assert "registry init DIR" in ran.err


def test_commands_run_anywhere_inside_and_with_minus_c(repository: Repository) -> None:
    inside = Repository(repository.root / "catalog/merges").run("plan")
    from_far = Repository(repository.root.parent).run("-C", str(repository.root), "plan")

    assert inside.code == from_far.code == 0
    assert inside.out == from_far.out == repository.run("plan").out


def test_plan_as_json_is_what_the_design_says(repository: Repository) -> None:
    data = json.loads(repository.run("plan", "average", "--format", "json").out)

    assert data.keys() == {"format_version", "digest", "changes", "summary"}
    (change,) = data["changes"]
    assert change.keys() == {"model", "action", "reasons", "key"}
    assert (change["model"], change["action"]) == ("average", "build")
    assert change["reasons"] == [{"kind": "never-built", "field": "", "old": None, "new": None}]
    assert data["summary"]["build"] == 1


def test_plan_against_a_revision_names_what_a_pull_request_changes(repository: Repository) -> None:
    repository.edit(MERGE, "weight: 0.8", "weight: -0.8")
    (repository.root / "catalog/merges/average.yaml").unlink()

    ran = repository.run("plan", "--against", "HEAD", "--format", "markdown")

    assert ran.code == 0
    assert "\n### Merge plan: 1 to build, 1 kept, 2 up to date\n" in ran.out
    row = next(line for line in ran.out.splitlines() if line.startswith("| both"))
    model, action, why, terms, moved, takes, *gates = row.strip("| ").split(" | ")
    assert (model, action, gates) == ("both\\-skills", "build", [])
    assert why.startswith(
        "recipe\\-changed: recipe\\.terms\\[adapter brief&#64;2\\]\\.weight 0\\.8"
    )
    assert terms == "`tiny-llama + 1·formal@1 − 0.8·brief@2`"
    weights = ["bases/tiny-llama", "adapters/formal/1", "adapters/brief/2"]
    read = sum(
        path.stat().st_size
        for one in weights
        for path in (repository.root / "catalog" / one / "weights").iterdir()
    )
    assert moved.partition(" →")[0] == f"{read / 1000:.3g} KB"
    assert takes == "–, –"  # nothing was ever built here
    assert "| average | kept | undeclared" in ran.out
    diff = repository.run("diff", "both-skills", "HEAD")
    assert diff.out.splitlines() == [
        "both-skills: recipe-changed: recipe.terms[adapter brief@2].weight 0.8 -> -0.8",
        "1 difference since HEAD",
    ]


def test_validate_tells_all_problems_and_what_is_not_at_hand(repository: Repository) -> None:
    shutil.rmtree(repository.root / "catalog/bases/tiny-llama/weights")

    ran = repository.run("validate")
    data = json.loads(repository.run("validate", "--format", "json").out)

    assert ran.code == 0
    assert ran.out == "base tiny-llama: not at hand\n9 files, no problems\n"
    assert data["not_at_hand"] == [{"what": "base tiny-llama", "recover": ""}]
    assert repository.run("plan").code == 0
    failed = repository.run("sync", "average")
    assert failed.code == 1
    assert "base tiny-llama: its bytes are not at hand" in failed.err


def test_validate_compares_headers_with_the_base(repository: Repository) -> None:
    config = repository.root / "catalog/adapters/formal/1/weights/adapter_config.json"
    config.write_text(config.read_text().replace('"r": 2', '"r": 3'))

    ran = repository.run("validate", "--no-weights")

    assert ran.code == 1
    assert "catalog/adapters/formal/1/adapter.yaml:6:10: weights: " in ran.err
    assert "expected rank 3, found 2 and 2" in ran.err


def test_stale_copies_of_schemas_are_a_warning(repository: Repository) -> None:
    path = repository.root / "schemas/merge.schema.json"
    path.write_text("{}")

    ran = repository.run("validate")
    again = repository.run("init", ".")

    assert ran.code == 0
    assert "warning: schemas/merge.schema.json: differs from the installed schema" in ran.err
    assert "schemas/merge.schema.json" in again.out
    assert repository.run("validate").err == ""


def test_show_and_explain_of_what_is_declared(repository: Repository) -> None:
    shown = repository.run("show", "formal-not-brief").out
    explained = repository.run("explain", "formal-not-brief").out

    assert shown.startswith("formal-not-brief = tiny-llama + 1·formal@1 − 0.5·brief@1\n")
    assert "-0.5  adapter brief@1" in shown
    assert "not built" in shown
    assert explained == "formal-not-brief: build: never-built\n"


def test_init_makes_a_valid_empty_catalog_and_keeps_what_is_there(tmp_path: Path) -> None:
    here = Repository(tmp_path)
    assert here.run("init", "My Models").code == 0
    made = Repository(tmp_path / "My Models")
    (made.root / "README.md").write_text("mine")

    again = here.run("init", "My Models")

    assert "0 files written" in again.out
    assert (made.root / "README.md").read_text() == "mine"
    assert "name: my-models" in (made.root / "catalog/registry.yaml").read_text()
    assert made.run("validate").out == "1 file, no problems\n"
    assert made.run("sync").out.endswith("nothing to do: 0 up to date\n")
    made.git("add", "-A")
    assert ".registry" not in made.git("status", "--porcelain")


def test_add_takes_in_an_adapter_as_its_next_version(
    repository: Repository, tmp_path: Path
) -> None:
    source = tmp_path / "trained"
    shutil.copytree(repository.root / "catalog/adapters/brief/1/weights", source)
    (source / "optimizer.pt").write_bytes(b"x")

    ran = repository.run("add", "adapter", str(source), "--name", "brief")

    assert ran.code == 0, ran.err
    assert "left behind, not needed: optimizer.pt" in ran.err
    text = (repository.root / "catalog/adapters/brief/3/adapter.yaml").read_text()
    assert "version: 3\nbase: tiny-llama\n" in text
    assert repository.run("validate").code == 0
    again = repository.run("add", "adapter", str(source), "--name", "brief", "--version", "3")
    assert again.code == 1
    assert "adapter brief@3 stands in the catalog already" in again.err


def test_add_refuses_wrong_weights_and_leaves_the_catalog_alone(
    repository: Repository, tmp_path: Path
) -> None:
    source = tmp_path / "trained"
    shutil.copytree(repository.root / "catalog/adapters/brief/1/weights", source)
    config = source / "adapter_config.json"
    config.write_text(config.read_text().replace('"peft_type": "LORA"', '"peft_type": "IA3"'))

    ran = repository.run("add", "adapter", str(source), "--name", "other")

    assert ran.code == 1
    assert "peft_type: expected LORA, found IA3" in ran.err
    assert repository.git("status", "--porcelain") == ""


def test_a_large_base_goes_behind_a_pointer(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "large"
    shutil.copytree(repository.root / "catalog/bases/tiny-llama/weights", source)
    (source / "LICENSE").write_bytes(b"x" * 11_000_000)

    ran = repository.run("add", "base", str(source), "--name", "large")

    assert ran.code == 0, ran.err
    assert "behind a DVC pointer" in ran.out
    assert (repository.root / "catalog/bases/large/weights.dvc").is_file()
    assert repository.run("validate").code == 0
    repository.git("add", "-A")
    assert "weights/LICENSE" not in repository.git("status", "--porcelain").replace("tiny", "")
