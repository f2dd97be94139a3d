"""What the service decides, with literals: when, which models, what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registry.errors import RegistryError
from registry.plan import Action, Change, Plan, Reason
from registry.service import choice, conditions, kept, memory, metrics, pace, transitions
from registry.service.choice import Ended, Standing
from registry.service.memory import Attempt, Memory, Suspension
from registry.service.pace import Situation, Step
from registry.service.snapshot import Job, Snapshot, Trouble
from registry.service.view import View

KEY = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


def build(model: str, key: str = KEY) -> Change:
    return Change(model, Action.BUILD, (Reason("never-built"),), key)


def idle(model: str, *kinds: str) -> Change:
    return Change(model, Action.NONE, tuple(Reason(kind) for kind in kinds), KEY)


def result(model: str, code: int, **more: str) -> dict[str, Any]:
    text = {"action": "build", "problem": "", "note": "", "hint": "", **more}
    return {"model": model, "exit_code": code, "model_digest": None, **text}


def seen(*changes: Change, upstream: Mapping[str, tuple[str, ...]] | None = None) -> Snapshot:
    rows: dict[str, Any] = {change.model: {} for change in changes}
    plan = Plan(changes)
    view = View("c" * 40, plan, plan.digest, rows, upstream or {}, is_ahead=False)
    return Snapshot("repo", "main", is_acting=True, view=view)


@pytest.mark.parametrize(
    ("situation", "step"),
    [
        (Situation(10, 70, 0), (Step.WAIT, 60)),
        (Situation(70, 70, 0), (Step.LOOK, 0)),
        (Situation(10, 70, 0, is_asked_to_look=True), (Step.LOOK, 0)),
        (Situation(10, 70, 0, is_due=True), (Step.SYNC, 0)),
        (Situation(10, 70, 30, is_due=True), (Step.WAIT, 20)),
        (Situation(10, 70, 0, is_due=True, is_held=True), (Step.WAIT, 60)),
        # What is asked for is looked at even while nothing may be synced.
        (Situation(10, 70, 0, is_held=True, is_asked_to_look=True), (Step.LOOK, 0)),
        (Situation(10, 70, 0, is_due=True, is_draining=True), (Step.STOP, 0)),
    ],
)
def test_the_next_step_follows_from_the_situation(
    situation: Situation, step: tuple[Step, float]
) -> None:
    assert pace.next_step(situation) == step


def test_waiting_doubles_up_to_ten_minutes_and_half_of_it_is_chance() -> None:
    whole = [pace.retry_seconds(count, 0.999999) for count in range(1, 12)]

    assert [round(seconds) for seconds in whole] == [
        2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600
    ]  # fmt: skip
    assert pace.retry_seconds(5, 0) == 16
    assert pace.retry_seconds(10_000, 0) == 300
    assert pace.interval_seconds(60, 0) == pytest.approx(54)
    assert pace.interval_seconds(60, 0.999999) == pytest.approx(66)


def test_a_failed_build_is_not_due_again_until_its_key_changes() -> None:
    failed = choice.learnt(
        Memory(), [result("a", 1, problem="refused")], [build("a")], Ended(7, "c", 5.0)
    )

    again = choice.survey([build("a"), build("b")], {}, failed)
    other = choice.survey([build("a", OTHER), build("b")], {}, failed)
    why = replace(build("a"), reasons=(Reason("artifact-missing"),))

    assert again.standings == {"a": Standing.FAILED, "b": Standing.DUE}
    assert again.selection(is_ahead=False) == ("b",)
    assert other.selection(is_ahead=False) == ()
    assert choice.survey([why], {}, failed).standings == {"a": Standing.FAILED}
    assert failed.attempts["a"][0] == Attempt(7, "c", "build", "failed", "refused", "", 5, 5)


def test_a_failed_evaluation_is_due_again_with_another_suite() -> None:
    def change(suite: str) -> Change:
        return Change("a", Action.EVALUATE, (Reason("suite-changed", "suite s", KEY, suite),), KEY)

    known = choice.learnt(Memory(), [result("a", 1)], [change(KEY)], Ended(1, "c", 0))

    assert choice.survey([change(KEY)], {}, known).standings["a"] is Standing.FAILED
    assert choice.survey([change(OTHER)], {}, known).standings["a"] is Standing.DUE


def test_what_may_work_later_is_due_and_what_worked_is_forgotten() -> None:
    later = choice.learnt(Memory(), [result("a", 75)], [build("a")], Ended(1, "c", 0))
    failed = Memory(failed={"a": "build " + KEY, "gone": "x"})
    done = choice.learnt(failed, [result("a", 0)], [idle("a")], Ended(1, "c", 0))
    log = Change("a", Action.LOG, (Reason("not-logged"),), KEY)
    left = choice.learnt(Memory(), [result("a", 0, action="log")], [log], Ended(1, "c", 0))
    built = choice.learnt(Memory(), [result("a", 0)], [log], Ended(1, "c", 0))

    assert choice.survey([build("a")], {}, later).due == ("a",)
    assert later.attempts["a"][0].outcome == left.attempts["a"][0].outcome == "later"
    assert built.attempts["a"][0].outcome == "done"
    assert done.failed == {}


def test_what_is_made_of_a_failed_model_is_blocked_at_any_depth() -> None:
    failed = Memory(failed={"a": "build " + KEY})
    changes = [build("a"), idle("b"), build("c", OTHER), build("d", OTHER)]

    found = choice.survey(changes, {"b": ("a",), "c": ("b",)}, failed)

    assert found.standings == {
        "a": Standing.FAILED,
        "b": Standing.CURRENT,
        "c": Standing.BLOCKED,
        "d": Standing.DUE,
    }
    assert found.held == {"a", "b", "c"}
    assert found.selection(is_ahead=True) == ("d",)


def test_a_commit_that_waits_is_pushed_by_a_sync_of_a_model_that_is_not_held() -> None:
    failed = Memory(failed={"a": "build " + KEY})

    assert choice.survey([build("a"), idle("b")], {}, failed).selection(is_ahead=True) == ("b",)
    assert choice.survey([build("a"), idle("b")], {}, failed).selection(is_ahead=False) is None
    assert choice.survey([build("a")], {}, failed).selection(is_ahead=True) is None
    assert choice.survey([idle("b")], {}, Memory()).selection(is_ahead=True) == ()


@pytest.mark.parametrize(
    ("change", "standing"),
    [
        (idle("a"), Standing.CURRENT),
        (idle("a", "revoked"), Standing.REVOKED),
        (idle("a", "undeclared"), Standing.UNDECLARED),
        (idle("a", "suspended"), Standing.SUSPENDED),
        (idle("a", "gate-failed-before"), Standing.FAILED),
        (Change("a", Action.NONE, (Reason("suspended", "merge b"),)), Standing.BLOCKED),
        (Change("a", Action.UNPUBLISH, (Reason("revoked"),)), Standing.DUE),
        (idle("paused"), Standing.SUSPENDED),
        (build("paused"), Standing.SUSPENDED),
    ],
)
def test_every_row_of_a_plan_has_a_standing(change: Change, standing: Standing) -> None:
    known = Memory(suspended_models={"paused": Suspension("x", 0)})

    assert choice.survey([change], {}, known).standings == {change.model: standing}


def test_the_same_attempt_again_is_counted_and_ten_are_kept() -> None:
    known = Memory()
    for number in range(12):
        end = Ended(number, f"commit {number // 2}", float(number))
        known = choice.learnt(known, [result("a", 75)], [build("a")], end)

    assert len(known.attempts["a"]) == 6
    assert (known.attempts["a"][0].count, known.attempts["a"][0].first) == (2, 10)
    for number in range(12):
        known = choice.learnt(known, [result("a", 0)], [idle("a")], Ended(9, str(number), 0))
    assert len(known.attempts["a"]) == memory.ATTEMPTS


def test_what_is_remembered_outlives_a_restart_and_damage_is_told(tmp_path: Path) -> None:
    file = tmp_path / "memory.json"
    known = Memory(
        accepted="c" * 40,
        suspended=Suspension("night", 1.5),
        suspended_models={"a": Suspension("why", 2.5)},
        failed={"a": "build x"},
        conditions=(memory.Condition("Ready", False, "Due", "1 model to sync", 3.0),),
    ).attempted("a", Attempt(1, "c", "build", "failed", "m", "h", 0, 0))

    assert memory.read(file) == Memory()
    memory.write(file, known)
    assert memory.read(file) == known
    file.write_text('{"format_version": 2}')
    with pytest.raises(RegistryError, match="expected what the service remembers"):
        memory.read(file)


def test_conditions_say_what_is_the_matter_and_keep_their_time() -> None:
    def told(now: Snapshot, at: float = 1.0) -> dict[str, tuple[bool, str]]:
        return {one.type: (one.status, one.reason) for one in conditions.judge(now, at)}

    calm = seen(idle("a"))
    trouble = Trouble("BranchRewritten", "rewritten", 0)
    suspended = replace(calm, memory=Memory(suspended=Suspension("night", 0)))

    assert told(calm) == {
        "Ready": (True, "UpToDate"),
        "Reconciling": (False, "Idle"),
        "Stalled": (False, "Following"),
    }
    assert told(seen(build("a")))["Ready"] == (False, "Due")
    assert told(seen(build("a")))["Reconciling"] == (True, "Queued")
    assert told(replace(seen(build("a")), retries=2))["Reconciling"] == (True, "Retrying")
    assert told(seen(idle("a", "gate-failed-before")))["Ready"] == (False, "ModelsFailed")
    assert told(replace(calm, is_acting=False))["Ready"] == (False, "Standby")
    assert told(replace(calm, view=None))["Ready"] == (False, "Starting")
    assert told(replace(calm, unreachable=Trouble("Unreachable", "", 0)))["Ready"][0] is False
    assert told(replace(calm, branch_trouble=trouble)) == {
        "Ready": (False, "BranchRewritten"),
        "Reconciling": (False, "Held"),
        "Stalled": (True, "BranchRewritten"),
    }
    assert told(suspended)["Ready"] == (False, "Suspended")
    running = replace(calm, jobs=(Job(3, "push", "c", 0.0),))
    assert told(running)["Reconciling"] == (True, "Syncing")
    first = conditions.judge(calm, 1.0)
    later = conditions.judge(replace(calm, memory=Memory(conditions=first)), 9.0)
    assert [one.since for one in later] == [1, 1, 1]


def test_asking_again_forgets_what_failed_of_the_models_that_are_named() -> None:
    bug = Trouble("Bug", "", 0)
    now = replace(
        seen(build("a")), memory=Memory(failed={"a": "x", "b": "y"}), retries=3, job_trouble=bug
    )

    assert transitions.asked_again(now, ["a"]).memory.failed == {"b": "y"}
    assert transitions.asked_again(now, []).memory.failed == {}
    assert (transitions.asked_again(now, []).retries, now.retries) == (0, 3)
    assert transitions.asked_again(now, []).trouble is None


def test_a_rewritten_branch_is_forgiven_by_a_person_only_at_the_commit_that_was_seen() -> None:
    rewritten = Trouble("BranchRewritten", "", 0, "new")
    now = replace(seen(idle("a")), branch_trouble=rewritten, memory=Memory(accepted="old"))

    forgiven = transitions.resumed(now, None)
    assert now.view
    followed = transitions.followed(forgiven, "new", now.view, has_inputs=False)

    assert (forgiven.memory.accepted, forgiven.memory.forgiven) == ("old", "new")
    assert forgiven.trouble == rewritten  # until the branch was looked at
    assert (followed.memory.accepted, followed.memory.forgiven) == ("new", None)
    assert followed.trouble is None
    other = replace(now, branch_trouble=Trouble("Unsigned", "", 0, "new"))
    assert transitions.resumed(other, None).memory.forgiven is None


def test_suspending_one_model_leaves_the_others_alone() -> None:
    now = transitions.suspended(seen(build("a"), build("b")), "a", Suspension("x", 0))

    assert now.selection == ("b",)
    assert not now.is_held
    assert transitions.resumed(now, "a").selection == ()
    assert transitions.suspended(now, None, Suspension("x", 0)).is_held


def test_a_new_commit_or_another_plan_ends_the_wait_and_other_inputs_forget_failures() -> None:
    before = replace(seen(build("a")), memory=Memory(accepted="old", failed={"a": "x"}), retries=4)
    assert before.view
    other = seen(build("a", OTHER)).view
    assert other

    def after(commit: str, view: View, *, has_inputs: bool = False) -> Snapshot:
        return transitions.followed(before, commit, view, has_inputs=has_inputs)

    assert after("old", before.view).retries == 4
    assert after("new", before.view).retries == after("old", other).retries == 0
    assert after("new", other).memory.failed == {"a": "x"}
    assert after("new", other, has_inputs=True).memory.failed == {}


def test_a_job_that_got_on_does_not_make_the_next_wait_longer() -> None:
    before = replace(seen(build("a"), build("b", OTHER)), retries=3)
    assert before.view
    left = seen(build("b", OTHER)).view
    assert left

    assert transitions.failures_after(before, before.view) == 4
    assert transitions.failures_after(before, left) == 3
    assert transitions.later(before, 4, 9.0).next_sync_at == 9.0
    assert transitions.later(seen(idle("a")), 4, 9.0).retries == 0


def test_a_sync_that_refused_or_broke_stalls_the_service_with_the_end_of_its_log() -> None:
    job = Job(4, "push", "c", 0.0, ended=1.0)
    before = replace(seen(build("a")), jobs=(replace(job, ended=None),))
    assert before.view

    def after(outcome: str) -> Snapshot:
        ended = replace(job, outcome=outcome)
        assert before.view
        return transitions.ended(before, ended, before.view, "pushed", "why")

    refused = after("refused")
    assert refused.trouble == Trouble("SyncRefused", "job 4: why", 1.0, "c")
    assert after("bug").trouble == Trouble("Bug", "job 4: why", 1.0, "c")
    assert [after(one).trouble for one in ("done", "failed", "later", "died")] == [None] * 4
    assert (refused.job, refused.memory.accepted) == (None, "pushed")
    assert refused.counters == {("job", "refused"): 1}
    lost = transitions.died(before, 7.0)
    assert (lost.jobs[0].outcome, lost.jobs[0].ended) == ("died", 7.0)
    assert transitions.died(seen(idle("a")), 7.0).jobs == ()


def test_metrics_are_prometheus_text_with_escaped_labels() -> None:
    hostile = 'a"b\\c\nd\x00\ud800'
    now = replace(seen(idle("a"), build("b")), branch=hostile, counters={("job", "done"): 3})

    told = metrics.text(now, "1.0").splitlines()

    assert r'branch="a\"b\\c\nd??"} 1.0' in told[2]
    assert 'registry_models{state="up-to-date"} 1.0' in told
    assert 'registry_models{state="due"} 1.0' in told
    assert 'registry_jobs_total{outcome="done"} 3.0' in told
    assert 'registry_jobs_total{outcome="died"} 0.0' in told
    samples = [line for line in told if not line.startswith("#")]
    assert all(line.rpartition(" ")[2].replace(".", "").isdecimal() for line in samples)


def test_answers_are_kept_as_long_as_the_view_and_the_oldest_go_first() -> None:
    view, other = seen(idle("a")).view, seen(idle("a")).view
    known = kept.Answers()

    packed = known.keep(view, ("model", "a"), {"é": None})
    for number in range(255):
        known.keep(view, ("model", str(number)), None)

    assert kept.unpacked(packed) == {"é": None}
    assert known.find(view, ("model", "a")) == packed
    assert known.find(other, ("model", "a")) is None
    known.keep(view, ("model", "one more"), 1)
    assert known.find(view, ("model", "a")) is None
    assert known.find(view, ("model", "0"))
    known.keep(other, ("x",), 1)
    assert known.find(view, ("model", "0")) is None
