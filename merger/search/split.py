"""Prompts to search on, and prompts held out to see what was found. Pure.

A search that is judged by the prompts it was made on is judged too well; so nothing is chosen by
the prompts held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

from merger.evaluate.suite import Prompt, Task


def split(
    tasks: Sequence[Task], held_out: float, seed: int
) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
    """Return every task with the prompts to search on, and with those held out.

    Of n prompts of a task ⌊held_out·n + ½⌋ are held out, at least one and at most n - 1: those
    whose sha256 of `seed:prompt` is least, of those without a prompt `seed:id`. So tasks that ask
    the same in other ways hold out the same, and a prompt stays where it is when others are added,
    but for the boundary. Prompts keep their order. With a share of 0 the second has no task. Raises
    EvaluationError for a task of one prompt, which cannot be split.
    """
    if held_out == 0:
        return tuple(tasks), ()
    chosen = [_held_out(task, held_out, seed) for task in tasks]
    return (
        tuple(_only(task, ids, wanted=False) for task, ids in zip(tasks, chosen, strict=True)),
        tuple(_only(task, ids, wanted=True) for task, ids in zip(tasks, chosen, strict=True)),
    )


def _held_out(task: Task, share: float, seed: int) -> frozenset[str]:
    count = len(task.prompts)
    if count < 2:
        raise task.fault("expected at least two prompts, one to search on and one to hold out")
    wanted = min(max(int(share * count + 0.5), 1), count - 1)

    def place(prompt: Prompt) -> tuple[bytes, str]:
        return sha256(f"{seed}:{prompt.text or prompt.id}".encode()).digest(), prompt.id

    return frozenset(prompt.id for prompt in sorted(task.prompts, key=place)[:wanted])


def _only(task: Task, ids: frozenset[str], *, wanted: bool) -> Task:
    return replace(task, prompts=tuple(one for one in task.prompts if (one.id in ids) == wanted))
