"""Terms looked at without building: the same numbers as a build, on any number of threads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import schemas
from merger import analysis, analysis_request, engine
from merger.errors import InputError
from merger.methods import METHODS
from merger.random_mask import random_mask
from tests import merging, tiny
from tests.merging import TermOf


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_base(tmp_path_factory.mktemp("base") / "base", exact=True)


@pytest.fixture(scope="module")
def terms(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[TermOf]:
    folder = tmp_path_factory.mktemp("terms")
    left = tiny.tiny_adapter(folder / "left", base=base, seed=1)
    right = tiny.tiny_adapter(folder / "right", base=base, seed=2, targets=("q_proj", "up_proj"))
    full = tiny.tiny_checkpoint(folder / "full", base=base, seed=3)
    return [TermOf(left, 0.5), TermOf(right, -1.0), TermOf(full, 2.0, kind="checkpoint")]


def looked_at(
    data: Mapping[str, Any], base: Path, terms: Sequence[TermOf], *, threads: int = 2
) -> dict[str, Any]:
    return analysis.analyze(
        analysis_request.parse(data),
        merging.inputs_of(base, terms),
        limits=engine.Limits(torch.device("cpu"), threads),
        progress=lambda _done, _total, _unit: None,
    )


def request_of(base: Path, terms: Sequence[TermOf], method: str, **options: Any) -> dict[str, Any]:
    build = merging.request_of(base, terms, method, **options)
    kept = {name: build[name] for name in ("format_version", "numerics", "base", "recipe")}
    return {**kept, "terms": None, "density": 0.1}


def operands_of(base: Path, terms: Sequence[TermOf]) -> dict[str, Any]:
    data = request_of(base, terms, "task_arithmetic")
    by_digest = {term["input"]["digest"]: term["input"] for term in data["recipe"]["terms"]}
    inputs = [by_digest[merging.digest_of(term.folder)] for term in terms]
    return {**data, "recipe": None, "terms": inputs}


@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
def test_figures_are_those_of_the_build(
    method: str, base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    options = {"density": 1.0} if method == "ties" else {}
    built = merging.build(tmp_path / "out", base, terms, method=method, **options).statistics

    found = looked_at(request_of(base, terms, method, **options), base, terms)

    total = found["total"]
    assert found["terms"] == [term["term"] for term in built["terms"]]
    assert total["cosines"] == built["cosines"]
    assert total["sign_conflict"] == built["sign_conflict"]
    assert total["result"]["norm"] == built["delta_norm"]
    assert total["result"]["nonzero"] == built["nonzero"]
    for mine, theirs in zip(total["terms"], built["terms"], strict=True):
        assert mine["norm"] == theirs["norm"]
        assert mine["weighted_norm"] == theirs["weighted_norm"]
        assert mine["elements"] == theirs["elements"]


def test_a_trimmed_result_is_the_one_that_a_build_writes(
    base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    built = merging.build(tmp_path / "out", base, terms, method="ties", scope="model").statistics

    found = looked_at(request_of(base, terms, "ties", scope="model"), base, terms)

    assert found["total"]["result"]["norm"] == built["delta_norm"]
    assert found["total"]["result"]["nonzero"] == built["nonzero"]


# A stack of layers has no terms side by side.
@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"passthrough"}))
def test_every_method_is_looked_at_with_the_result_that_a_build_writes(
    method: str, base: Path, terms: list[TermOf], tmp_path: Path
) -> None:
    has_weights = schemas.methods()[method]["x-weights"]
    pair = [
        dataclasses.replace(term, weight=weight)
        for term, weight in zip(terms[:2], (1.0, 0.5), strict=True)
    ]
    if not has_weights:
        pair = [dataclasses.replace(term, weight=1.0) for term in pair]
    built = merging.build(tmp_path / "out", base, pair, method=method).statistics

    found = looked_at(request_of(base, pair, method), base, pair)["total"]

    assert found["result"]["norm"] == built["delta_norm"]
    assert found["cosines"] == built["cosines"]
    assert [term["norm"] for term in found["terms"]] == [term["norm"] for term in built["terms"]]
    assert all(-1 < share < 3 for share in found["result"]["survival"])


def test_parts_are_layers_embeddings_and_head_and_add_up(base: Path, terms: list[TermOf]) -> None:
    found = looked_at(operands_of(base, terms), base, terms)

    parts = {part["part"]: part for part in found["parts"]}
    assert list(parts) == ["embeddings", "layer 0", "layer 1", "head"]
    assert sum(part["elements"] for part in parts.values()) == found["total"]["elements"]
    squares = [sum(part["terms"][term]["norm"] ** 2 for part in parts.values()) for term in (0, 2)]
    assert squares == pytest.approx(
        [found["total"]["terms"][term]["norm"] ** 2 for term in (0, 2)], rel=1e-5
    )
    assert parts["head"]["terms"][0]["tensors"] == 0
    assert parts["head"]["sign_agreement"][0][1] is None


def lora_deltas(folder: Path) -> dict[str, Any]:
    factors = tiny.read_tensors(folder)
    found = {}
    for name in factors:
        if "lora_A" in name:
            target = name.removeprefix("base_model.model.").replace("lora_A.", "")
            product = factors[name.replace("lora_A", "lora_B")].astype(np.float64) @ factors[name]
            found[target] = 2 * product
    return found


def checkpoint_deltas(base: Path, folder: Path) -> dict[str, Any]:
    before, after = tiny.read_tensors(base), tiny.read_tensors(folder)
    return {name: after[name].astype(np.float64) - before[name] for name in before}


def test_the_figures_are_numpys(base: Path, terms: list[TermOf]) -> None:
    found = looked_at(operands_of(base, terms), base, terms)

    left, full = lora_deltas(terms[0].folder), checkpoint_deltas(base, terms[2].folder)
    dot = sum(float((left[name] * full[name]).sum()) for name in left)
    norms = [np.sqrt(sum(float((v**2).sum()) for v in vector.values())) for vector in (left, full)]
    same = sum(int((left[name] * full[name] > 0).sum()) for name in left)
    both = sum(int((left[name] * full[name] != 0).sum()) for name in left)
    assert found["total"]["cosines"][0][2] == pytest.approx(dot / np.prod(norms), rel=1e-4)
    assert found["total"]["sign_agreement"][0][2] == pytest.approx(same / both, rel=1e-6)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("dare_linear", {"normalize": False}),
        ("dare_ties", {}),
        ("dare_ties", {"election": "unweighted_total"}),
    ],
)
def test_the_conflict_that_masks_leave_is_counted_and_expected(
    method: str, options: dict[str, Any], base: Path, terms: list[TermOf]
) -> None:
    pair = [terms[0], terms[2]]
    data = request_of(base, pair, method, density=0.5, seed=7, **options)

    found = looked_at(data, base, pair)["total"]

    vectors = [lora_deltas(pair[0].folder), checkpoint_deltas(base, pair[1].folder)]
    signs = [{name: np.sign(tau) for name, tau in vector.items()} for vector in vectors]
    left = []
    for vector, term in zip(signs, pair, strict=True):
        kept = {
            name: random_mask(7, merging.digest_of(term.folder), name).kept(0.5, 0, sign.size)
            for name, sign in vector.items()
        }
        left.append({name: sign.reshape(-1) * kept[name] for name, sign in vector.items()})
    conflicts = sum(int((left[0][name] * left[1][name] < 0).sum()) for name in left[0])
    reached = sum(int(np.count_nonzero(sign)) for sign in signs[1].values())
    reached += sum(int(((signs[1][n] == 0) & (signs[0][n] != 0)).sum()) for n in signs[0])
    assert found["dare"]["realised"] == pytest.approx(conflicts / reached, rel=1e-6)
    assert found["dare"]["expected"] == pytest.approx(found["sign_conflict"] / 4, rel=1e-6)


@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
def test_threads_change_no_figure(method: str, base: Path, terms: list[TermOf]) -> None:
    data = request_of(base, terms, method)

    assert looked_at(data, base, terms, threads=1) == looked_at(data, base, terms, threads=3)


def test_operands_stand_in_the_order_of_asking(base: Path, terms: list[TermOf]) -> None:
    there = looked_at(operands_of(base, terms), base, terms)
    back = looked_at(operands_of(base, terms[::-1]), base, terms)

    assert there["terms"] == ["adapter left@1", "adapter right@1", "checkpoint full@1"]
    assert back["terms"] == there["terms"][::-1]
    assert back["total"]["terms"] == there["total"]["terms"][::-1]


def test_lambda_shows_as_the_share_that_survives(base: Path, terms: list[TermOf]) -> None:
    found = looked_at(request_of(base, terms[:1], "task_arithmetic", lambda_=0.25), base, terms[:1])

    assert found["total"]["result"]["survival"] == [0.25]
    assert found["total"]["result"]["signs_kept"] == [1.0]


def test_a_value_that_is_no_number_is_named(base: Path, tmp_path: Path) -> None:
    full = tiny.tiny_checkpoint(tmp_path / "full", base=base, seed=3)
    broken = tiny.read_tensors(full)
    broken["model.norm.weight"][3] = np.inf
    tiny.write_safetensors(full / "model.safetensors", broken, dtype="bfloat16")
    term = TermOf(full, kind="checkpoint")

    with pytest.raises(InputError, match="non-finite value") as raised:
        looked_at(operands_of(base, [term]), base, [term])

    assert (raised.value.tensor, raised.value.term) == ("model.norm.weight", "checkpoint full@1")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"density": 0}, "density"),
        ({"density": True}, "density"),
        ({"recipe": {}}, "recipe"),
        ({"terms": None}, "recipe"),
        ({"terms": {}}, "terms"),
        ({"terms": []}, "recipe.terms"),
        ({"numerics": 0}, "numerics"),
        ({"base": None}, "base"),
        ({"more": 1}, "request"),
    ],
)
def test_a_request_of_another_form_is_refused(
    change: dict[str, Any], field: str, base: Path, terms: list[TermOf]
) -> None:
    with pytest.raises(InputError) as raised:
        analysis_request.parse({**operands_of(base, terms), **change})

    assert raised.value.field == field


def test_the_schema_has_the_keys_of_the_request(base: Path, terms: list[TermOf]) -> None:
    assert operands_of(base, terms).keys() == set(schemas.load("analysis-request")["required"])
