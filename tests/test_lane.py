"""One lane in the background: order, what is told of failures, and an end that nothing outlasts."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest

from registry import lane as lane_module
from registry.lane import Lane


def test_tasks_are_carried_out_in_order_on_one_thread_that_is_not_ours() -> None:
    lane = Lane()
    done: list[tuple[int, int]] = []

    for number in range(20):
        lane.submit(lambda number=number: done.append((number, threading.get_ident())))  # type: ignore[misc]
    last = lane.submit(lambda: "made")

    assert last.result(10) == "made"
    assert [number for number, _ in done] == list(range(20))
    assert {thread for _, thread in done} != {threading.get_ident()}
    assert len({thread for _, thread in done}) == 1
    lane.end()


def test_a_failure_is_told_and_stops_no_later_task() -> None:
    lane = Lane()

    failed = lane.submit(lambda: 1 // 0)

    assert lane.submit(lambda: 2).result(10) == 2
    with pytest.raises(ZeroDivisionError):
        failed.result(10)
    lane.end()


def test_a_lane_without_tasks_starts_no_thread() -> None:
    before = threading.active_count()
    lane = Lane()

    lane.end()

    assert threading.active_count() == before


def test_after_its_end_nothing_is_begun_and_nothing_made_to_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lane_module, "END_SECONDS", 0.05)
    lane = Lane()
    is_running, may_go_on = threading.Event(), threading.Event()
    made: list[str] = []

    def task() -> None:
        is_running.set()
        may_go_on.wait(10)
        with lane.lasting():
            made.append("late")

    running = lane.submit(task)
    waiting = lane.submit(lambda: made.append("later"))
    assert is_running.wait(10)

    lane.end()  # does not wait for ever
    may_go_on.set()

    with pytest.raises(CancelledError):
        running.result(10)
    with pytest.raises(CancelledError):
        waiting.result(10)
    assert made == []


def test_what_is_being_made_to_last_is_finished_before_the_end() -> None:
    lane = Lane()
    is_inside, may_go_on = threading.Event(), threading.Event()
    made: list[str] = []

    def task() -> None:
        with lane.lasting():
            is_inside.set()
            may_go_on.wait(10)
            made.append("whole")

    lane.submit(task)
    assert is_inside.wait(10)
    threading.Timer(0.05, may_go_on.set).start()

    lane.end()

    assert made == ["whole"]
