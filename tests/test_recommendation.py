"""Which rule speaks for which terms, and that what it says can be built."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

import schemas
from merger.methods import METHODS
from registry import recommendation, recommendation_report
from registry.recommendation import RULES, Facts, recommend
from registry.spec import IngredientId
from tests.conftest import Repository
from tests.test_formats import check


def facts(count: int = 2, kind: str = "adapter", cosine: float = 0.1, **changes: Any) -> Facts:
    base = Facts(
        kinds=(kind,) * count,
        norms=(10.0,) * count,
        deviations=(0.001,) * count,
        ranks=(8 if kind == "adapter" else None,) * count,
        cosines=(cosine,) * (count * (count - 1) // 2),
        sign_conflict=0.45,
    )
    return dataclasses.replace(base, **changes)


CASES = [
    ("subtract", facts(2, subtracted=1), "task_arithmetic"),
    ("subtract", facts(1, subtracted=1), "task_arithmetic"),
    ("one-term", facts(1, sign_conflict=0.0), "task_arithmetic"),
    ("parallel-pair-of-checkpoints", facts(2, "checkpoint", 0.95), "slerp"),
    ("parallel", facts(3, "checkpoint", 0.95), "linear"),
    ("parallel", facts(2, "adapter", 0.95), "linear"),
    ("checkpoints-of-one-task", facts(2, "checkpoint", 0.6), "model_stock"),
    ("alike", facts(2, "adapter", 0.8, sign_conflict=0.19), "linear"),
    ("uneven", facts(3, norms=(30.0, 10.0, 12.0)), "task_arithmetic"),
    ("few-conflicts", facts(3, sign_conflict=0.1), "task_arithmetic"),
    ("two-terms", facts(2), "task_arithmetic"),
    ("two-terms", facts(2, "checkpoint"), "task_arithmetic"),
    ("two-terms", facts(2, cosine=0.4, sign_conflict=0.2), "task_arithmetic"),
    ("many-checkpoints", facts(8, "checkpoint"), "tsv_m"),
    ("redundant-checkpoints", facts(3, "checkpoint"), "dare_ties"),
    ("low-rank-adapters", facts(3), "tsv_m"),
    ("conflicts", facts(3, "checkpoint", deviations=(0.03,) * 3), "ties"),
    ("conflicts", facts(3, ranks=(8, 128, 8)), "ties"),
    ("conflicts", facts(3, ranks=(8, None, 8)), "ties"),
    ("conflicts", facts(3, kinds=("adapter", "adapter", "checkpoint")), "ties"),
]


@pytest.mark.parametrize(("rule", "found", "method"), CASES)
def test_the_first_rule_that_applies_speaks(rule: str, found: Facts, method: str) -> None:
    advice = recommend(found)

    assert (advice.rule, advice.method) == (rule, method)


def test_every_rule_is_spoken_somewhere_and_rests_on_something() -> None:
    assert [rule.name for rule in RULES] == list(dict.fromkeys(rule for rule, _, _ in CASES))
    for rule in RULES:
        assert rule.method in METHODS
        assert "arXiv:" in rule.source or rule.source.startswith("our catalog: ")


def test_weights_follow_the_rule() -> None:
    weights = [
        recommend(found).weights
        for found in (
            facts(2),
            facts(3, subtracted=2),
            facts(3, norms=(30.0, 10.0, 12.0)),
            facts(3, sign_conflict=0.1),
        )
    ]

    assert weights == [(1.0, 0.5), (1.0, -0.75, -0.75), (0.33, 1.0, 0.83), (1.0, 1.0, 1.0)]


def test_terms_without_a_length_are_not_divided_by() -> None:
    assert recommend(facts(3, norms=(0.0, 10.0, 10.0))).rule == "low-rank-adapters"


@pytest.mark.parametrize("found", [case[1] for case in CASES], ids=[case[0] for case in CASES])
def test_every_advice_is_a_spec_that_the_catalog_takes(
    found: Facts, repository: Repository
) -> None:
    from registry.cli.session import open_session

    # Of the example's adapters there are three; the kinds and the number of terms are the rule's.
    advice = recommend(found)
    method = schemas.methods()[advice.method]
    ids: list[IngredientId] = [("adapter", "formal", 1), ("adapter", "brief", 1)]
    ids = [*ids, ("adapter", "brief", 2)][: max(method["x-terms"], min(found.count, 3))]
    short = dataclasses.replace(advice, weights=advice.weights[: len(ids)])
    text = recommendation_report.spec(
        short, found, name="advised", base="tiny-llama", operands=ids, suites=["office"]
    )
    (repository.root / "catalog/merges/advised.yaml").write_text(text + "\n")

    session = open_session(repository.root)

    assert session.declared["advised"].request["recipe"]["method"] == advice.method
    assert all(len(line) <= 98 for line in text.splitlines())
    if method["x-weights"]:
        terms = session.loaded.catalog.merges["advised"].terms
        assert tuple(term.weight for term in terms) == short.weights


@pytest.mark.parametrize(
    ("operands", "subtracted", "taken", "name"),
    [
        ([("adapter", "sql", 1), ("adapter", "json", 2)], 0, [], "sql-json"),
        ([("adapter", "sql", 1), ("adapter", "json", 2)], 1, [], "sql-not-json"),
        ([("adapter", "json", 1), ("adapter", "json", 2)], 0, [], "json-1-json-2"),
        ([("adapter", "sql", 1)], 0, ["sql", "sql-2"], "sql-3"),
        ([("adapter", "a" * 40, 1), ("adapter", "b" * 40, 1)], 0, [], f"{'a' * 40}-{'b' * 22}"),
    ],
)
def test_the_merge_gets_a_name_that_is_free(
    operands: list[IngredientId], subtracted: int, taken: list[str], name: str
) -> None:
    assert recommendation_report.free_name(operands, subtracted, taken) == name


def test_the_command_prints_a_spec_that_validates_and_builds(repository: Repository) -> None:
    file = "catalog/merges/formal-not-brief-2.yaml"
    ran = repository.run("recommend", "formal", "--subtract", "brief@1", "-o", file)

    assert ran.code == 0, ran.err
    assert "# A starting point, not a result: only measuring tells." in ran.out
    assert "registry sync formal-not-brief-2 && registry show formal-not-brief-2" in ran.out
    assert (repository.root / file).read_text() == ran.out
    assert repository.run("validate").code == 0
    built = repository.run("sync", "formal-not-brief-2")
    assert built.code == 0, built.err
    lineage = repository.run("lineage", "formal-not-brief-2").out
    assert "-0.75 adapter brief@1  (subtracted)" in lineage


def test_a_saved_spec_has_the_name_of_its_file_and_replaces_none(repository: Repository) -> None:
    file = repository.root / "catalog/merges/mine.yaml"
    assert repository.run("recommend", "formal", "-o", str(file)).code == 0
    assert repository.run("validate").code == 0
    file.write_text(text := file.read_text() + "# mine\n")

    again = repository.run("recommend", "formal", "-o", str(file))
    nowhere = repository.run("recommend", "formal", "-o", "nowhere/mine.yaml")

    assert (again.code, file.read_text()) == (1, text)
    assert "stands there already" in again.err
    assert nowhere.code == 64
    assert "cannot write nowhere/mine.yaml: No such file or directory" in nowhere.err


def test_as_json_the_spec_is_there_with_facts_and_reason(repository: Repository) -> None:
    ran = repository.run("recommend", "formal", "brief@2", "--format", "json")

    data = json.loads(ran.out)
    check("recommendation", data)
    assert data["operands"] == ["adapter formal@1", "adapter brief@2"]
    assert data["facts"]["ranks"] == [2, 2]
    assert data["spec"] == repository.run("recommend", "formal", "brief@2").out.rstrip("\n")
    rule = recommend(Facts(**data["facts"])).rule
    assert data["advice"]["rule"] == rule


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "expected an adapter or a checkpoint, found none"),
        (["average"], "expected adapters and checkpoints, found merge average"),
        (["formal", "--subtract", "formal"], "adapter formal@1 is named twice"),
        (["formal", "--subtract", "brif@1"], "did you mean brief"),
    ],
)
def test_wrong_names_are_wrong_usage(
    repository: Repository, arguments: list[str], told: str
) -> None:
    ran = repository.run("recommend", *arguments)

    assert ran.code == 64, ran.err
    assert told in ran.err


def test_the_table_is_handed_over_as_it_is() -> None:
    assert recommendation.recommend(facts(1), [RULES[-1]]).rule == "conflicts"
