"""The plan is tested with literals: no file, no clock, no store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from registry.plan import Action, Observed, Options, Plan, Reason, gates_data, make
from registry.record import BuildRecord, Built, Evaluation, Logged, Rejected, UnreadableRecord
from registry.request import Declaration, evaluation_request, key_of
from registry.spec import Gate
from schemas.canonical import digest

A, B, BASE = (digest(name) for name in ("adapter a", "adapter b", "base"))
SUITE = {"name": "s", "digest": digest("suite"), "tasks": []}
STORE = "store-1"


def request(
    *terms: dict[str, Any], method: str = "task_arithmetic", **extra: Any
) -> dict[str, Any]:
    parameters = {"lambda": 1.0, "normalize": False}
    return {
        "format_version": 1,
        "numerics": 1,
        "base": {"kind": "base", "name": "b", "digest": BASE},
        "recipe": {
            "method": method,
            "parameters": parameters,
            "terms": list(terms),
            "compute": "float32",
        },
        "output": {"form": "model", "dtype": "base", "max_shard_size": 5_000_000_000},
        **extra,
    }


def adapter(name: str, weight: float = 1.0, *, version: int = 1, bytes_: str = A) -> dict[str, Any]:
    source = {"kind": "adapter", "name": name, "version": version, "digest": bytes_}
    return {"input": source, "weight": weight, "parameters": {}}


def merge(name: str, weight: float = 1.0) -> dict[str, Any]:
    return {"input": {"kind": "merge", "name": name}, "weight": weight, "parameters": {}}


def declare(
    model: str,
    wanted: Mapping[str, Any],
    *,
    gates: Mapping[str, Gate] | None = None,
    suite: Mapping[str, Any] | None = None,
    suspend: str = "",
    revoked: str = "",
) -> Declaration:
    upstream = tuple(
        term["input"]["name"]
        for term in wanted["recipe"]["terms"]
        if term["input"]["kind"] == "merge"
    )
    name = suite["name"] if suite else None
    return Declaration(model, wanted, upstream, name, suite, gates or {}, suspend, revoked)


def built(
    one: Declaration, digests: Mapping[str, str] | None = None, **changes: Any
) -> BuildRecord:
    pinned = one.pin(digests or {})
    key = key_of(pinned)
    model_digest = digest(f"model of {key}")
    measured = None
    if one.suite_request:
        wanted = evaluation_request(one.suite_request, model_digest)
        assert wanted is not None
        measured = Evaluation(key_of(wanted), wanted, {"t": 1.0}, gates_data(one.gates))
    facts = Built(
        key, pinned, model_digest, {"digest": digest("x"), "files": {}}, {}, "cpu", 1.0, 1
    )
    parts: dict[str, Any] = {"evaluation": measured, "mlflow": Logged(STORE, "r", "1"), **changes}
    return BuildRecord(one.model, facts, **parts)


def plan(
    declared: list[Declaration],
    recorded: list[BuildRecord | UnreadableRecord] | None = None,
    *,
    present: Mapping[str, str] | None = None,
    options: Options | None = None,
    **observed: Any,
) -> Plan:
    records = {one.model: one for one in recorded or [] if isinstance(one, BuildRecord)}
    if present is None:
        present = {one.built.key: one.built.model_digest for one in records.values() if one.built}
    observed.setdefault("tracking_store", STORE)
    seen = Observed(records, present, **observed)
    return make({one.model: one for one in declared}, seen, options)


def rows(made: Plan) -> list[tuple[str, str, list[str]]]:
    return [
        (change.model, change.action.value, [reason.kind for reason in change.reasons])
        for change in made.changes
    ]


def test_what_was_never_built_is_built() -> None:
    made = plan([declare("m", request(adapter("a")))])

    assert rows(made) == [("m", "build", ["never-built"])]


def test_what_is_built_and_logged_needs_nothing() -> None:
    one = declare("m", request(adapter("a")))

    made = plan([one], [built(one)])

    assert rows(made) == [("m", "none", [])]
    assert made.is_empty


def test_a_changed_weight_names_the_term_with_old_and_new() -> None:
    before = declare("m", request(adapter("a", 0.4)))

    made = plan([declare("m", request(adapter("a", 0.6)))], [built(before)])

    expected = Reason("recipe-changed", "recipe.terms[adapter a@1].weight", 0.4, 0.6)
    assert made.changes[0].reasons == (expected,)
    assert made.changes[0].action is Action.BUILD


def test_another_version_of_an_adapter_is_a_changed_input() -> None:
    before = declare("m", request(adapter("a", version=1, bytes_=A)))

    made = plan([declare("m", request(adapter("a", version=2, bytes_=B)))], [built(before)])

    assert made.changes[0].reasons == (Reason("input-changed", "adapter", "a@1", "a@2"),)


def test_swapped_bytes_of_the_same_version_are_a_changed_input() -> None:
    before = declare("m", request(adapter("a", bytes_=A)))

    made = plan([declare("m", request(adapter("a", bytes_=B)))], [built(before)])

    assert made.changes[0].reasons == (Reason("input-changed", "adapter a@1", A, B),)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"numerics": 2}, Reason("numerics-changed", "numerics", 1, 2)),
        (
            {"output": {"form": "model", "dtype": "float16", "max_shard_size": 5_000_000_000}},
            Reason("recipe-changed", "output.dtype", "base", "float16"),
        ),
        (
            {"base": {"kind": "base", "name": "b", "digest": B}},
            Reason("input-changed", "base b", BASE, B),
        ),
    ],
)
def test_each_part_of_a_request_has_its_reason(change: dict[str, Any], reason: Reason) -> None:
    before = declare("m", request(adapter("a")))

    made = plan([declare("m", request(adapter("a"), **change))], [built(before)])

    assert made.changes[0].reasons == (reason,)


def test_a_term_more_and_a_term_less_are_named() -> None:
    before = declare("m", request(adapter("a")))

    made = plan([declare("m", request(adapter("c", 0.5, bytes_=B)))], [built(before)])

    assert made.changes[0].reasons == (
        Reason("recipe-changed", "recipe.terms[adapter a@1]", 1.0, None),
        Reason("recipe-changed", "recipe.terms[adapter c@1]", None, 0.5),
    )


def test_the_order_of_terms_means_nothing() -> None:
    one, other = adapter("a", bytes_=A), adapter("c", bytes_=B)
    before = declare("m", request(one, other))

    made = plan([declare("m", request(other, one))], [built(before)])

    assert made.is_empty


def test_a_key_seen_before_is_restored_not_built() -> None:
    before, now = declare("m", request(adapter("a", 0.4))), declare("m", request(adapter("a", 0.6)))
    key = key_of(now.pin({}))

    made = plan([now], [built(before)], present={key: digest("kept")})

    assert rows(made) == [("m", "restore", ["recipe-changed"])]


def test_what_is_made_of_a_stale_merge_waits_to_see() -> None:
    inner, outer = (
        declare("inner", request(adapter("a"))),
        declare("outer", request(merge("inner"))),
    )

    made = plan([inner, outer])

    assert rows(made) == [
        ("inner", "build", ["never-built"]),
        ("outer", "maybe", ["input-changed"]),
    ]


def test_a_restored_upstream_with_the_same_digest_stales_nothing() -> None:
    inner, outer = (
        declare("inner", request(adapter("a"))),
        declare("outer", request(merge("inner"))),
    )
    known = built(inner)
    assert known.built is not None
    top = built(outer, {"inner": known.built.model_digest})
    assert top.built is not None
    present = {known.built.key: known.built.model_digest, top.built.key: top.built.model_digest}

    made = plan([inner, outer], [top], present=present)

    assert rows(made) == [("inner", "restore", ["never-built"]), ("outer", "none", [])]


def test_missing_bytes_are_built_again() -> None:
    one = declare("m", request(adapter("a")))

    made = plan([one], [built(one)], present={})

    assert rows(made) == [("m", "build", ["artifact-missing"])]


def test_altered_bytes_are_built_again_though_they_seem_present() -> None:
    one = declare("m", request(adapter("a")))

    made = plan([one], [built(one)], altered={"m"})

    assert rows(made) == [("m", "build", ["artifact-altered"])]


def test_a_changed_suite_is_evaluated_and_a_changed_gate_only_judged() -> None:
    before = declare("m", request(adapter("a")), suite=SUITE, gates={"t": Gate(at_least=0.5)})
    other = {**SUITE, "digest": digest("other")}
    suite = declare("m", request(adapter("a")), suite=other, gates={"t": Gate(at_least=0.5)})
    gate = declare("m", request(adapter("a")), suite=SUITE, gates={"t": Gate(at_least=0.9)})

    assert rows(plan([suite], [built(before)])) == [("m", "evaluate", ["suite-changed"])]
    assert rows(plan([gate], [built(before)])) == [("m", "judge", ["gate-changed"])]


def test_an_attempt_that_a_gate_stopped_is_not_tried_again() -> None:
    one = declare("m", request(adapter("a")), suite=SUITE, gates={"t": Gate(at_least=0.9)})
    key, model_digest = key_of(one.pin({})), digest("rejected")
    wanted = evaluation_request(SUITE, model_digest)
    assert wanted is not None
    rejected = Rejected(key, model_digest, key_of(wanted), gates_data(one.gates), (), {})
    looser = declare("m", request(adapter("a")), suite=SUITE, gates={"t": Gate(at_least=0.1)})
    known = BuildRecord("m", rejected=rejected)

    assert rows(plan([one], [known])) == [("m", "none", ["gate-failed-before"])]
    assert rows(plan([looser], [known], present={key: model_digest})) == [
        ("m", "restore", ["never-built"])
    ]


def test_logging_and_pushing_are_caught_up() -> None:
    one = declare("m", request(adapter("a")))

    assert rows(plan([one], [built(one)], tracking_store="other")) == [("m", "log", ["not-logged"])]
    assert rows(plan([one], [built(one)], unpushed={"m"})) == [("m", "push", ["not-pushed"])]
    both = plan([one], [built(one, mlflow=None)], unpushed={"m"})
    assert rows(both) == [("m", "log", ["not-logged", "not-pushed"])]
    assert not any(change.is_pending for change in both.changes)


def test_undeclared_models_are_kept_until_pruned() -> None:
    gone = built(declare("old", request(adapter("a"))))

    assert rows(plan([], [gone])) == [("old", "none", ["undeclared"])]
    assert rows(plan([], [gone], options=Options(prune=True))) == [("old", "prune", ["undeclared"])]


def test_revoked_models_are_unpublished_and_block_what_is_made_of_them() -> None:
    inner = declare("inner", request(adapter("a")), revoked="adapter a@1: leaked data")
    outer = declare("outer", request(merge("inner")), revoked="adapter a@1: leaked data")

    made = plan([inner, outer], [built(declare("inner", request(adapter("a"))))])

    assert rows(made) == [("inner", "unpublish", ["revoked"]), ("outer", "none", ["revoked"])]


def test_suspended_models_are_left_alone_and_go_on_serving_others() -> None:
    inner = declare("inner", request(adapter("a", 0.9)), suspend="freeze")
    outer = declare("outer", request(merge("inner")))
    known = built(declare("inner", request(adapter("a", 0.1))))

    assert rows(plan([inner, outer], [known])) == [
        ("inner", "none", ["suspended"]),
        ("outer", "build", ["never-built"]),
    ]
    assert rows(plan([inner, outer])) == [
        ("inner", "none", ["suspended"]),
        ("outer", "none", ["suspended"]),
    ]


def test_an_unreadable_record_is_written_anew() -> None:
    one = declare("m", request(adapter("a")))
    seen = Observed({"m": UnreadableRecord("m.json: no JSON")}, {}, tracking_store=STORE)

    made = make({"m": one}, seen)

    assert rows(made) == [("m", "build", ["record-unreadable"])]


def test_a_rebuild_is_done_although_nothing_changed() -> None:
    one = declare("m", request(adapter("a")))

    made = plan([one], [built(one)], options=Options(rebuild={"m"}))

    assert rows(made) == [("m", "build", ["rebuild-requested"])]


def test_equal_plans_have_equal_digests_and_others_do_not() -> None:
    one = declare("m", request(adapter("a")))

    assert plan([one]).digest == plan([one]).digest
    assert plan([one]).digest != plan([one], [built(one)]).digest


def test_a_renamed_model_keeps_its_artifact_and_says_what_it_was() -> None:
    wanted = request(adapter("a"))
    key = key_of(wanted)
    former = BuildRecord(
        "old", Built(key, wanted, A, {"digest": A, "files": {}}, {}, "", 0.0, 0), None, None
    )
    seen = Observed({"old": former}, {key: A}, tracking_store=STORE)

    made = make({"new": declare("new", wanted)}, seen)

    (new, old) = made.changes
    assert (new.action, new.reasons) == (
        Action.RESTORE,
        (Reason("renamed", "model", "old", "new"),),
    )
    assert (old.model, old.action, old.reasons) == ("old", Action.NONE, (Reason("undeclared"),))


def test_a_copy_of_a_declared_model_is_no_rename() -> None:
    wanted = request(adapter("a"))
    key = key_of(wanted)
    one = BuildRecord("m", Built(key, wanted, A, {"digest": A, "files": {}}, {}, "", 0.0, 0))
    seen = Observed({"m": one}, {key: A}, tracking_store=STORE)
    both = {name: declare(name, wanted) for name in ("m", "copy")}

    (_, copy) = make(both, seen).changes

    assert copy.reasons == (Reason("never-built"),)
