"""What a build will take, by hand; and nothing where nothing is known."""

from __future__ import annotations

from typing import Any

from registry import estimate
from registry.estimate import Estimate
from registry.record import Built
from registry.request import Declaration

SIZES = {"base small": 1000, "adapter sql@1": 50, "adapter json@1": 150}
OUTPUT = {"form": "model", "dtype": "base", "max_shard_size": 5 * 10**9}


def request(method: str, *inputs: tuple[str, str], output: Any = None) -> dict[str, Any]:
    terms = []
    for kind, name in inputs:
        version = {} if kind == "merge" else {"version": 1}
        source = {"kind": kind, "name": name, "digest": f"sha256:{name}", **version}
        terms.append({"input": source, "weight": 1.0})
    base = {"kind": "base", "name": "small", "digest": "sha256:base"}
    recipe = {"method": method, "parameters": {}, "terms": terms}
    return {"base": base, "recipe": recipe, "output": output or OUTPUT}


def declared(model: str, wanted: dict[str, Any]) -> Declaration:
    return Declaration(model, wanted, (), None, None, {}, "", "")


def built(wanted: dict[str, Any], seconds: float, peak: int, written: int) -> Built:
    files = {"a": {"size": written - 100}, "b": {"size": 100}}
    artifact = {"digest": "", "files": files}
    return Built("", wanted, "", artifact, {}, "cpu", seconds, peak)


SQL, JSON = ("adapter", "sql"), ("adapter", "json")


def made(wanted: dict[str, Any], *before: Built, sizes: dict[str, int] = SIZES) -> Estimate:
    return estimate.estimates([declared("x", wanted)], sizes, before)["x"]


def test_seconds_follow_the_bytes_read_by_builds_of_the_same_method() -> None:
    before = (
        built(request("ties", SQL), 10.5, 400, 1010),  # 0.01 s for each byte
        built(request("ties", SQL), 31.5, 600, 1020),  # 0.03
        built(request("ties", SQL), 21.0, 500, 1030),  # 0.02
        built(request("linear", SQL), 1.0, 9, 1040),
    )

    # 1200 bytes at the median of 0.02 s; the output's size is the median of all four.
    assert made(request("ties", SQL, JSON), *before) == Estimate(1200, 1025, 24.0, 500, 3)


def test_a_method_without_builds_is_measured_by_the_others() -> None:
    before = built(request("linear", SQL), 10.5, 400, 1010)

    assert made(request("ties", JSON), before) == Estimate(1150, 1010, 11.5, 400, 1)


def test_builds_on_another_base_say_nothing() -> None:
    other = request("ties", SQL)
    other["base"] = {"kind": "base", "name": "large", "digest": "sha256:other"}

    assert made(request("ties", SQL), built(other, 10.0, 400, 1)) == Estimate(1050, 1000)


def test_an_ingredient_of_unknown_size_leaves_the_rest_unknown() -> None:
    before = built(request("ties", SQL), 10.0, 400, 1010)

    assert made(request("ties", SQL, ("adapter", "far")), before) == Estimate(None, 1010)


def test_another_dtype_and_an_adapter_have_no_size_to_go_by() -> None:
    half = {**OUTPUT, "dtype": "float16"}
    adapter = {"form": "adapter", "dtype": "float32", "rank": None}

    assert made(request("ties", SQL, output=half)).writes is None
    assert made(request("ties", SQL, output=adapter)).writes is None


def test_a_merge_of_merges_reads_what_those_will_write() -> None:
    one, two = request("ties", SQL), request("ties", ("merge", "one"), JSON)

    found = estimate.estimates([declared("one", one), declared("two", two)], SIZES, ())

    assert found["two"] == Estimate(1000 + 1000 + 150, 1000)


def test_a_sum_is_unknown_where_a_part_of_it_is() -> None:
    some, none = Estimate(1, 2, 3.0), Estimate(4)

    assert estimate.total([some, none], lambda one: one.reads) == 5
    assert estimate.total([some, none], lambda one: one.seconds) is None
    assert estimate.total([], lambda one: one.reads) is None
