"""Build requests: every default written out, nothing in them that does not change bytes."""

from __future__ import annotations

import json

import schemas
from registry import catalog, request
from registry.index import Index
from registry.request import Declaration, alone, declare, key_of
from registry.tree import WorkingTree
from tests.conftest import Repository

TERM = {"kind": "adapter", "name": "formal", "version": 1}


def declared(repository: Repository, model: str = "both-skills") -> Declaration:
    return declare(catalog.load(WorkingTree(repository.root), Index(repository.root)).catalog)[
        model
    ]


def test_a_request_holds_every_default(repository: Repository) -> None:
    request = declared(repository, "trimmed").pin({})

    adapter = (repository.root / "catalog/adapters/formal/1/adapter.yaml").read_text().split('"')[1]
    assert request["numerics"] == schemas.numerics()
    assert request["recipe"]["parameters"] == {
        "density": 0.2,
        "scope": "tensor",
        "election": "total",
        "tie": "positive",
        "min_agreement": 0.0,
        "combine": "mean",
        "lambda": 1.0,
    }
    assert request["output"] == {
        "form": "model",
        "dtype": "base",
        "max_shard_size": 5_000_000_000,
    }
    assert "seed" not in request["recipe"]
    assert {"input": {**TERM, "digest": adapter}, "weight": 1.0, "parameters": {}} in (
        request["recipe"]["terms"]
    )


def test_what_changes_no_byte_is_not_in_the_request(repository: Repository) -> None:
    before = key_of(declared(repository).pin({}))
    repository.edit(
        "catalog/merges/both-skills.yaml",
        "kind: merge",
        "kind: merge\ndescription: d\nowner: o\nlabels: {a: b}\nsuspend: {reason: r}",
    )
    repository.edit("catalog/merges/both-skills.yaml", "weight: 1.0", "weight: 1")

    one = declared(repository)

    assert key_of(one.pin({})) == before
    text = json.dumps(one.pin({}))
    assert str(repository.root) not in text
    assert "both-skills" not in text


def test_two_names_with_equal_recipes_share_one_key(repository: Repository) -> None:
    merges = repository.root / "catalog/merges"
    text = (merges / "both-skills.yaml").read_text()
    (merges / "twin.yaml").write_text(text.replace("name: both-skills", "name: twin"))

    assert key_of(declared(repository).pin({})) == key_of(declared(repository, "twin").pin({}))


def test_a_term_alone_is_task_arithmetic_at_weight_1(repository: Repository) -> None:
    request = declared(repository, "trimmed").pin({})

    single = alone(request, 0)

    assert single["recipe"]["method"] == "task_arithmetic"
    assert single["recipe"]["parameters"] == {"lambda": 1.0, "normalize": False}
    assert [term["weight"] for term in single["recipe"]["terms"]] == [1.0]
    assert single["base"] == request["base"]


def test_an_adapter_names_its_base_when_it_is_measured_and_is_compared_with_models() -> None:
    digest = "sha256:" + "b" * 64
    term = {"input": {"kind": "adapter", "name": "sql", "version": 1}, "weight": 2.0}
    build = {
        "base": {"kind": "base", "name": "tiny", "digest": digest},
        "recipe": {"method": "ties", "parameters": {}, "terms": [term], "compute": "float32"},
        "output": request.output({"form": "adapter", "rank": 8}),
    }

    assert build["output"] == {"form": "adapter", "dtype": "float32", "rank": 8}
    assert request.output({"form": "adapter"})["rank"] is None
    assert request.base_under(build) == digest
    assert request.base_under({**build, "output": request.output({})}) is None
    measured = request.evaluation_request({"name": "s"}, "sha256:a", digest)
    assert measured is not None
    assert measured["base"] == digest
    assert request.alone(build, 0)["output"] == request.output({"dtype": "float32"})
