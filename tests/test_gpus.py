"""GPUs by turns: which worker sees which, and how many there are said to be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from registry import gpus
from registry.executor import Executor


def test_workers_take_the_gpus_by_turns() -> None:
    shown = [gpus.assigned(slot, 3, {}) for slot in range(5)]

    assert [one["CUDA_VISIBLE_DEVICES"] for one in shown] == ["0", "1", "2", "0", "1"]


@pytest.mark.parametrize("count", [0, 1])
def test_with_less_than_two_nothing_is_chosen(count: int) -> None:
    assert gpus.assigned(1, count, {}) == {}


@pytest.mark.parametrize("chosen", ["3", "", "0,1"])
def test_what_the_user_chose_is_left_alone(chosen: str) -> None:
    assert gpus.assigned(1, 4, {"CUDA_VISIBLE_DEVICES": chosen}) == {}


def test_each_worker_of_a_sync_is_shown_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(gpus.VISIBLE, raising=False)

    two = Executor(3, tmp_path / "log", gpus=2)
    none = Executor(2, tmp_path / "log")

    assert [worker._environment.get(gpus.VISIBLE) for worker in two._workers] == ["0", "1", "0"]
    assert [worker._environment.get(gpus.VISIBLE) for worker in none._workers] == [None, None]


def test_the_driver_is_counted_or_else_its_tool_is_asked(tmp_path: Path) -> None:
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "driver" / name).mkdir(parents=True)
    listing = "GPU 0: A (UUID: 1)\\n  MIG 1g.5gb Device 0: (UUID: 2)\\nGPU 1: A (UUID: 3)\\n"
    tool = (sys.executable, "-c", f"print('{listing}')")

    assert gpus.count(tmp_path / "driver") == 2
    assert gpus.count(tmp_path / "absent", tool) == 2
    assert gpus.count(tmp_path / "absent", (str(tmp_path / "absent"),)) == 0
    assert gpus.count(tmp_path / "absent", (sys.executable, "-c", "exit(9)")) == 0
